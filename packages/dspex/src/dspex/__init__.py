"""DSPy programs and language model patterns in worker processes.

The functions of this module use one client, which starts at the first call and ends with the
interpreter; `configure()` says what it runs with. Importing the module starts nothing.

Example:
    >>> import dspex
    >>> dspex.ask("What is the capital of France?")
    'Paris'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex import errors
    from dspex.client import AsyncClient, Client
    from dspex.default import (
        answer_with_context,
        ask,
        call,
        call_tool,
        chain_of_thought,
        classify,
        clear_global_session,
        close,
        configure,
        default_client,
        delete_variable,
        extract_entities,
        generate,
        get_or_create_global_session,
        get_session_variable,
        get_variable,
        list_tools,
        list_variables,
        predict,
        predict_with_session,
        register_tool,
        set_session_variable,
        set_variable,
        start_session,
        stop_session,
        summarize,
        temp_session,
        tool,
        unregister_tool,
    )
    from dspex.module import AsyncModuleHandle, Module, ModuleHandle, ModuleInfo
    from dspex.prediction import Answer, Prediction
    from dspex.sessions import (
        AsyncSession,
        Session,
        generate_session_id,
        generate_temp_session_id,
        is_temp_session,
    )
    from snakepit_grpc_bridge import Settings

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncModuleHandle",
    "AsyncSession",
    "Client",
    "Module",
    "ModuleHandle",
    "ModuleInfo",
    "Prediction",
    "Session",
    "Settings",
    "__version__",
    "answer_with_context",
    "ask",
    "call",
    "call_tool",
    "chain_of_thought",
    "classify",
    "clear_global_session",
    "close",
    "configure",
    "default_client",
    "delete_variable",
    "errors",
    "extract_entities",
    "generate",
    "generate_session_id",
    "generate_temp_session_id",
    "get_or_create_global_session",
    "get_session_variable",
    "get_variable",
    "is_temp_session",
    "list_tools",
    "list_variables",
    "predict",
    "predict_with_session",
    "register_tool",
    "set_session_variable",
    "set_variable",
    "start_session",
    "stop_session",
    "summarize",
    "temp_session",
    "tool",
    "unregister_tool",
]

__version__ = "0.1.0"

# Imported when first used: `dspex --help` and programs in workers need none of it.
_HOMES = {
    "AsyncClient": "dspex.client",
    "Client": "dspex.client",
    "AsyncModuleHandle": "dspex.module",
    "Module": "dspex.module",
    "ModuleHandle": "dspex.module",
    "ModuleInfo": "dspex.module",
    "Answer": "dspex.prediction",
    "Prediction": "dspex.prediction",
    "AsyncSession": "dspex.sessions",
    "Session": "dspex.sessions",
    "generate_session_id": "dspex.sessions",
    "generate_temp_session_id": "dspex.sessions",
    "is_temp_session": "dspex.sessions",
    "Settings": "snakepit_grpc_bridge",
}


if not TYPE_CHECKING:  # or type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return import_module("dspex.errors")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, "dspex.default")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
