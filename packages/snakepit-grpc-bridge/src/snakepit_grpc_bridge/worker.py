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
raise a LookupError. They block until the host has answered; async code awaits those that begin with
an ``a``. Where one takes the name of a variable, it takes its id as well, which never means a later
variable of that name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import snakepit
from snakepit_grpc_bridge.tools.worker_view import tools
from snakepit_grpc_bridge.variables.worker_view import MISSING, variables

__all__ = [
    "acall_tool",
    "adelete_variable",
    "aget_variable",
    "ahas_variable",
    "alist_variables",
    "aset_variable",
    "astream_tool",
    "aupdate_variable",
    "call_tool",
    "delete_variable",
    "get_variable",
    "has_variable",
    "list_tools",
    "list_variables",
    "set_variable",
    "stream_tool",
    "update_variable",
]


def call_tool(name: str, /, **parameters: Any) -> Any:
    """Call a tool of the host and return its result.

    Raises:
        ToolNotFound: the session can call no tool of that name.
        ValidationFailed: a parameter is missing or unknown.
        ToolExecutionFailed: the tool raised.
    """
    return tools.call(name, parameters)


async def acall_tool(name: str, /, **parameters: Any) -> Any:
    """As :func:`call_tool`, for async code."""
    return await tools.acall(name, parameters)


def stream_tool(name: str, /, **parameters: Any) -> Iterator[Any]:
    """Iterate over what a tool of the host yields. Leaving the loop early stops it.

    Raises: as :func:`call_tool`.
    """
    return tools.stream(name, parameters)


def astream_tool(name: str, /, **parameters: Any) -> AsyncIterator[Any]:
    """As :func:`stream_tool`, for async code."""
    return tools.astream(name, parameters)


def list_tools() -> list[dict[str, Any]]:
    """Return the tools that the session can call, by name: ``name``, ``kind``, ``exposure``,
    ``description``, ``parameters``, ``streams`` and ``schema``.
    """
    described: list[dict[str, Any]] = snakepit.current_call().call_host("tools.list")
    return described


def get_variable(name: str, default: Any = MISSING) -> Any:
    """Return a variable of the session, else the global one of that name, else the default.

    What was read before is kept and costs no question to the host; it is never older than the last
    write that was acknowledged before the running call was made. Arrays are read-only views.

    Raises:
        VariableNotFound: there is none, and no default was given.
    """
    return variables.get(name, default)


async def aget_variable(name: str, default: Any = MISSING) -> Any:
    """As :func:`get_variable`, for async code."""
    return await variables.aget(name, default)


def set_variable(name: str, value: Any) -> None:
    """Write a variable of the session, creating it if need be.

    Raises:
        ValidationFailed: the value does not fit the variable's type or constraints.
        ReadOnlyVariable, QuotaExceeded: it can't be written, or the session is full.
    """
    variables.put(name, value)


async def aset_variable(name: str, value: Any) -> None:
    """As :func:`set_variable`, for async code."""
    await variables.aput(name, value)


def update_variable(name: str, function: Callable[[Any], Any], default: Any = MISSING) -> Any:
    """Replace a variable's value by ``function`` of it, and return that. No write is lost.

    The value is what reading finds, a copy of the default if there is none. When somebody else has
    written meanwhile, ``function`` is called again with what they wrote: it should be quick, and
    have no effects of its own. What it raises is raised here, and nothing is written.

    Raises: as :func:`get_variable` and :func:`set_variable`.

    Example::

        update_variable("visits", lambda visits: visits + 1, default=0)
    """
    return variables.update(name, function, default)


async def aupdate_variable(
    name: str, function: Callable[[Any], Any], default: Any = MISSING
) -> Any:
    """As :func:`update_variable`, for async code."""
    return await variables.aupdate(name, function, default)


def has_variable(name: str) -> bool:
    """Say whether reading would find a variable, the session's or a global one."""
    return variables.exists(name)


async def ahas_variable(name: str) -> bool:
    """As :func:`has_variable`, for async code."""
    return await variables.aexists(name)


def delete_variable(name: str) -> bool:
    """Delete a variable of the session itself; say whether there was one.

    Raises:
        NotAllowed: it is a secret, which the host alone may delete.
    """
    return variables.delete(name)


async def adelete_variable(name: str) -> bool:
    """As :func:`delete_variable`, for async code."""
    return await variables.adelete(name)


def list_variables(pattern: str = "*") -> list[dict[str, Any]]:
    """Return what the session can read, by name: ``id``, ``name``, ``type``, ``version`` and
    ``scope``, which is "session" or "global". Values are left out: they may be large.

    Example::

        weights = {each["name"]: get_variable(each["id"]) for each in list_variables("w_*")}
    """
    return variables.listed(pattern)


async def alist_variables(pattern: str = "*") -> list[dict[str, Any]]:
    """As :func:`list_variables`, for async code."""
    return await variables.alisted(pattern)
