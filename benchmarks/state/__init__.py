"""Sessions, variables and tools against what they are made of: a part of `make bench`.

`docs/performance.md` tells what came out. The parts:

- ``host``: the services of a platform, with one worker and without a language model.
- ``programs``: what is measured in the worker.
- ``measures``: everything else, in turns: each round measures all of it once.
- ``many``: a great number of sessions, in a process of its own, since it is about memory.
- ``figures``: from rounds to ratios and goals.
"""
