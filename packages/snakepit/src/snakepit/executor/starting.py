"""How an executor's workers are started: as ``multiprocessing`` starts processes, but from a
template.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker, spawn
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Literal, cast

from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.errors import ConfigurationError
from snakepit.executor.errors import also
from snakepit.executor.pickling import DEFAULT_PICKLER, Pickler, pack, pack_for_start
from snakepit.executor.runner import TARGET, TRACKER

_PROCESS_NAME = "SnakepitProcess"


class Start:
    """What a worker does before its first call, and how it comes to be.

    Args:
        initializer, initargs: called in each worker before its calls, or None.
        pickler: what pickles.
        method: how workers are started.

    Raises:
        ConfigurationError: the initializer or its arguments can't be pickled.
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        pickler: Pickler,
        method: Literal["template", "spawn"],
    ) -> None:
        self.pickler = pickler
        self.method = method
        self._initializer = initializer
        self._initargs = initargs
        self._pickle = b""
        self._is_reusable = initializer is None
        if initializer is not None:
            self._try()

    def _try(self) -> None:
        try:
            pack_for_start((self._initializer, self._initargs), self.pickler, trial=True)
        except Exception as error:
            raise ConfigurationError(
                f"initializer and initargs have to be picklable: {type(error).__name__}: {error}. "
                "What multiprocessing makes for sharing (Lock, Queue, Value) has to come from "
                "multiprocessing.get_context('forkserver')"
            ) from error

    def for_a_worker(self) -> bytes:
        """A pickle of what one worker does before its first call; empty if it is nothing."""
        if not self._is_reusable:
            value = self._initializer, self._initargs
            self._pickle, self._is_reusable = pack_for_start(value, self.pickler)
        return self._pickle


def start_method(context: BaseContext | None) -> Literal["template", "spawn"]:
    """How workers are started for what was passed as ``mp_context``.

    Raises:
        ConfigurationError: by forking this process.
    """
    method = None if context is None else context.get_start_method()
    if method == "fork":
        raise also(
            ValueError,
            ConfigurationError(
                "mp_context is of the start method 'fork', but workers are never forked from this "
                "process: they don't have what it has set at run time. Leave mp_context out, or "
                "pass multiprocessing.get_context('forkserver'), and set what they need in an "
                "initializer"
            ),
        )
    return "spawn" if method == "spawn" else "template"


class TaskAdapter(PythonAdapter):
    """Starts the workers of one executor.

    Raises:
        RuntimeError: by ``multiprocessing``: this process is itself just being started.
    """

    def __init__(self, start: Start) -> None:
        preparation = spawn.get_preparation_data(_PROCESS_NAME)
        key = bytes(preparation.pop("authkey"))
        if not Path(preparation.get("init_main_from_path", "")).exists():
            # A program that was read from standard input, as good as an interactive session.
            preparation.pop("init_main_from_path", None)
        pickler = start.pickler.__name__
        super().__init__(
            TARGET,
            config={
                "preparation": _pickled({**preparation, "authkey": key}),
                "pickler": pickler,
                "host": os.getpid(),
            },
            # The key is for workers only.
            warm_config={"preparation": _pickled(preparation), "pickler": pickler},
            start=start.method,
            output="inherit",
        )
        self._start = start

    def _inherited(self) -> Mapping[int, int]:
        tracker = cast(Any, resource_tracker)._resource_tracker._fd
        streams = super()._inherited()
        return streams if tracker is None else {**streams, TRACKER: tracker}

    def _new_config(self) -> Mapping[str, Any]:
        return {**super()._new_config(), "start": self._start.for_a_worker()}


def _pickled(preparation: Mapping[str, Any]) -> bytes:
    # Not as data: a path or an argument may be no valid text.
    (data,) = pack(preparation, DEFAULT_PICKLER)
    return cast(bytes, data)
