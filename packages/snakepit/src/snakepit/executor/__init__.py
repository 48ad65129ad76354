"""A ``concurrent.futures.Executor`` over a pool. See docs/executor.md.

``executor.py`` is what users see, ``engine.py`` what runs on its loop's thread, ``runner.py`` the
class of its workers; ``pickling.py`` is where both sides make bytes of objects and back.
"""
