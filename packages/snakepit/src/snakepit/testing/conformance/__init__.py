"""A conformance suite: does a program keep the rules of PROTOCOL.md?

Against any worker in any language, by its command line::

    python -m snakepit.testing.conformance -- node worker.js

or from a test, by :func:`check_worker`. The suite plays the host over real sockets; the program has
to offer a few commands, which docs/other-languages.md lists. PROTOCOL.md has the rules by their
ids.
"""

from __future__ import annotations

from snakepit.testing.conformance.rules import Rule
from snakepit.testing.conformance.suite import (
    REFERENCE_TARGET,
    RULES,
    Finding,
    Report,
    Verdict,
    check_worker,
)

__all__ = [
    "REFERENCE_TARGET",
    "RULES",
    "Finding",
    "Report",
    "Rule",
    "Verdict",
    "check_worker",
]
