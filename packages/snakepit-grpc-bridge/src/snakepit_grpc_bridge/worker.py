"""For your own programs: the platform, as seen from inside a worker process.

Everything here belongs to the session of the call that is running, and to no other::

    import dspy
    from snakepit_grpc_bridge.worker import call_tool, get_variable

    class Shop(dspy.Module):
        def __init__(self):
            self.answer = dspy.Predict("question, price: float -> answer")

        def forward(self, question, item):
            price = call_tool("price", item=item) * get_variable("rate", 1.0)
            return self.answer(question=question, price=price)

Use them in code that a call runs, on its thread or in threads it starts; outside of a call they
raise a LookupError. They block until the host has answered. From synchronous code only.
"""

from __future__ import annotations

from typing import Any

import snakepit

__all__ = ["call_tool", "get_variable", "list_tools", "set_variable"]

_MISSING: Any = object()


def call_tool(name: str, /, **parameters: Any) -> Any:
    """Call a tool of the host and return its result.

    Raises:
        ToolNotFound: the session can call no tool of that name.
        ValidationFailed: a parameter is missing or unknown.
        ToolExecutionFailed: the tool raised.
    """
    return _host("tools.call", name=name, parameters=parameters)


def list_tools() -> list[dict[str, Any]]:
    """Return the tools the session can call: ``name``, ``description`` and ``parameters``."""
    described: list[dict[str, Any]] = _host("tools.list")
    return described


def get_variable(name: str, default: Any = _MISSING) -> Any:
    """Return a variable of the session, else the global one of that name, else the default.

    Raises:
        VariableNotFound: there is none, and no default was given.
    """
    given = {} if default is _MISSING else {"default": default}
    return _host("variables.get", name=name, **given)


def set_variable(name: str, value: Any) -> None:
    """Write a variable of the session, creating it if need be.

    Raises:
        ValidationFailed: the value does not fit the variable's type or constraints.
    """
    _host("variables.put", name=name, value=value)


def _host(function: str, **arguments: Any) -> Any:
    return snakepit.current_call().call_host(function, arguments)
