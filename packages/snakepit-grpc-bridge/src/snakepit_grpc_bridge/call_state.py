"""What the running calls of a worker know of their sessions. Worker side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import snakepit
from snakepit_grpc_bridge.variables.call_view import State

__all__ = ["current_state", "serving"]

_states: Final[dict[int, State]] = {}


@contextmanager
def serving(state: object) -> Iterator[None]:
    """While the block runs, the current call sees what was written before ``state``, which came
    with it; None for a call that came without.
    """
    if not isinstance(state, list):
        yield
        return
    call_id = snakepit.current_call().call_id
    _states[call_id] = State(*state)
    try:
        yield
    finally:
        del _states[call_id]


def current_state(call: snakepit.CallContext) -> State | None:
    """The state that came with a call."""
    return _states.get(call.call_id)
