"""Language models as a service of the platform: one pool runs the engines, programs call it.

On the host: :mod:`.catalog` (which model), :mod:`.install` (the model in the box), :mod:`.service`
(the pool). In the pool's worker: :mod:`.worker_native` or :mod:`.worker_provider`. In the workers
that run DSPy programs: :mod:`.worker` and :mod:`.adapter`.
"""
