"""Names of pools that tell them apart: in worker ids, logs and errors of one process."""

from __future__ import annotations

import itertools
import os
import threading

_lock = threading.Lock()
_taken: set[str] = set()
# The pools of a fork's parent are not there.
os.register_at_fork(after_in_child=_taken.clear)


def claim_name(name: str) -> str:
    """``name``, or with a number behind it while another pool of this process has it."""
    with _lock:
        numbered = (f"{name}#{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if each not in _taken)
        _taken.add(free)
        return free


def give_back_name(name: str) -> None:
    """Let another pool have a name that ``claim_name`` returned."""
    with _lock:
        _taken.discard(name)
