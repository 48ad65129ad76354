"""DSPy programs in worker processes: `host` serves the platform's users, `worker` runs in workers.

The host never imports dspy; only modules that workers load do.
"""
