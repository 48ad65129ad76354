"""Tools for tests of programs that use snakepit, and of snakepit itself. No test framework needed.

- :class:`Gate`: stop a worker at a place of your choice, act, and let it go on.
- :class:`Fault`, :class:`FaultyAdapter`: have a worker die, raise or freeze at a named phase.
- :class:`FrameProxy`: lose, repeat, damage and hold back what travels between host and workers.
- :class:`ScriptedAdapter`: a pool without processes, whose answers the test has written.
- :class:`ManualClock`: an hour passes when the test says so.
- :class:`EventRecorder`: which events were told.
- :func:`kill_worker`, :func:`frozen` and others: what hits a process from outside.
- :func:`assert_no_leaks`: nothing may be left behind.
- :mod:`snakepit.testing.conformance`: whether a worker in any language keeps the protocol.

Nothing here runs unless a test asks for it: the library itself never imports this package. See
docs/testing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.lazy_names import lazy_names

if TYPE_CHECKING:
    from snakepit.testing.clock import ManualClock
    from snakepit.testing.events import EventRecorder, RecordedEvent
    from snakepit.testing.faults import Action, Fault, FaultyAdapter, Firing, Phase
    from snakepit.testing.frame_proxy import Direction, FrameProxy, FrameRule, ProxiedLink, Tamper
    from snakepit.testing.gates import Arrival, Gate, apass_gate, pass_gate
    from snakepit.testing.leaks import Leak, LeakCheck, LeakError, LeakKind, assert_no_leaks
    from snakepit.testing.scripted import (
        Die,
        Fail,
        ReceivedCall,
        Reply,
        ScriptedAdapter,
        ScriptedWorker,
        Step,
        Stream,
    )
    from snakepit.testing.signals import (
        frozen,
        kill_keeper,
        kill_template,
        kill_worker,
        signal_process,
        worker_pid,
    )
    from snakepit.testing.waiting import alive, until, wait_until

__all__ = [
    "Action",
    "Arrival",
    "Die",
    "Direction",
    "EventRecorder",
    "Fail",
    "Fault",
    "FaultyAdapter",
    "Firing",
    "FrameProxy",
    "FrameRule",
    "Gate",
    "Leak",
    "LeakCheck",
    "LeakError",
    "LeakKind",
    "ManualClock",
    "Phase",
    "ProxiedLink",
    "ReceivedCall",
    "RecordedEvent",
    "Reply",
    "ScriptedAdapter",
    "ScriptedWorker",
    "Step",
    "Stream",
    "Tamper",
    "alive",
    "apass_gate",
    "assert_no_leaks",
    "frozen",
    "kill_keeper",
    "kill_template",
    "kill_worker",
    "pass_gate",
    "signal_process",
    "until",
    "wait_until",
    "worker_pid",
]

# Imported when first used: a worker that waits at a gate needs no leak checker.
_HOMES = {
    "clock": ("ManualClock",),
    "events": ("EventRecorder", "RecordedEvent"),
    "faults": ("Action", "Fault", "FaultyAdapter", "Firing", "Phase"),
    "frame_proxy": ("Direction", "FrameProxy", "FrameRule", "ProxiedLink", "Tamper"),
    "gates": ("Arrival", "Gate", "apass_gate", "pass_gate"),
    "leaks": ("Leak", "LeakCheck", "LeakError", "LeakKind", "assert_no_leaks"),
    "scripted": (
        "Die",
        "Fail",
        "ReceivedCall",
        "Reply",
        "ScriptedAdapter",
        "ScriptedWorker",
        "Step",
        "Stream",
    ),
    "signals": (
        "frozen",
        "kill_keeper",
        "kill_template",
        "kill_worker",
        "signal_process",
        "worker_pid",
    ),
    "waiting": ("alive", "until", "wait_until"),
}


if not TYPE_CHECKING:  # or else a type checker would accept any name
    __getattr__ = lazy_names(
        __name__, {name: home for home, names in _HOMES.items() for name in names}
    )
