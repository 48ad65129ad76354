"""What adapters have in common whose workers are processes that speak the protocol."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from snakepit.adapters.adapter import CallOptions, WorkerSpec, call_worker
from snakepit.adapters.limits import ResourceLimits
from snakepit.errors import ConfigurationError
from snakepit.hardware.cpu import usable_cpus
from snakepit.link.channels import HostEnds, WorkerEnds, open_channels
from snakepit.link.handshake import WorkerConfig
from snakepit.link.worker import WorkerProcess
from snakepit.options import instance_or_none
from snakepit.processes.events import worker_spawned
from snakepit.processes.tree import ProcessTree, acquire_tree, release_tree
from snakepit.telemetry import bus
from snakepit.wire.codec import encode

# Seconds that a host whose loop runs may take after a call's deadline and grace to end its worker;
# then it is the keeper's turn.
_BACKSTOP_DELAY = 3.0
# Libraries read these when they are imported, so they have to be in the environment before.
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: Starts a process in a tree with these ends of its channels, and returns its pid.
StartProcess = Callable[[ProcessTree, WorkerEnds], Awaitable[int]]


class ProcessAdapter:
    """The base of PythonAdapter and ProgramAdapter: channels, keeper, environment, one pool."""

    # Whether processes are forked from one that is warm.
    _forks = False

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None,
        env: Mapping[str, str] | None,
        withhold: Sequence[str],
        limits: ResourceLimits | None,
    ) -> None:
        require_texts("withhold", withhold)
        self._config = dict(config or {})
        encode(self._config, root="config")
        self._env = _checked_env(env or {})
        self._withhold = tuple(withhold)
        self._limits = instance_or_none("limits", limits, ResourceLimits)
        self._in_use = False
        self._tree: ProcessTree | None = None

    @property
    def keeper_pid(self) -> int | None:
        """The process id of the parent of all this adapter's processes, if it is up."""
        tree = self._tree
        return None if tree is None or tree.is_broken else tree.pid

    @property
    def worker_memory(self) -> int | None:
        """Bytes of memory that each worker may use, None for no limit."""
        return None if self._limits is None else self._limits.memory

    async def init(self) -> None:
        """Take this adapter for a pool; the pool calls this.

        Raises:
            ConfigurationError: another pool has it.
        """
        if self._in_use:
            raise ConfigurationError(f"{self!r} is used by another pool; create one for each")
        self._in_use = True

    async def execute(
        self, worker: WorkerProcess, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> Any:
        """Run a command outside a pool. (A pool hands its calls to the worker directly.)"""
        return await call_worker(worker, command, args, options)

    async def terminate(self, reason: str) -> None:
        """End what belongs to this adapter, and the keeper if no other pool of this loop uses it.
        The pool calls this.
        """
        self._in_use = False
        await self._release_processes()

    async def _start_connected(
        self, spec: WorkerSpec, config: WorkerConfig, start: StartProcess
    ) -> WorkerProcess:
        """Start a process that is born with its channels, and wait until it is ready."""
        tree = await self._living_tree()
        ends, worker_ends = self._open_channels()
        worker = WorkerProcess(spec.worker_id, ends, config, spec.host_functions)
        began_at = time.monotonic()
        try:
            try:
                pid = await start(tree, worker_ends)
                tree.guard(pid, worker_ends.mark, spec.cancel_grace + _BACKSTOP_DELAY)
            finally:
                worker_ends.close()
            if bus.listening:
                worker_spawned(spec.pool, spec.worker_id, pid, began_at, forked=self._forks)
            await worker.start(tree, pid)
        except BaseException:
            await worker.discard()
            raise
        return worker

    def _open_channels(self) -> tuple[HostEnds, WorkerEnds]:
        return open_channels()

    async def _release_processes(self) -> None:
        if self._tree is not None:
            tree, self._tree = self._tree, None
            await release_tree(tree)

    async def _living_tree(self) -> ProcessTree:
        if self._tree is not None and self._tree.is_broken:
            await self._release_processes()
        if self._tree is None:
            self._tree = acquire_tree()
        return self._tree

    def _environment(self, pool_size: int) -> dict[str, str]:
        """The environment of a worker, with its share of the processors for libraries' threads."""
        share = str(max(1, usable_cpus() // pool_size))
        environment = dict.fromkeys(_THREAD_LIMITS, share) | {"TOKENIZERS_PARALLELISM": "false"}
        for name, value in os.environ.items():
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self._withhold):
                environment[name] = value
        return environment | self._env


def require_texts(name: str, value: Sequence[str]) -> None:
    """Refuse what is no sequence of texts; a text is none, though it looks like one.

    Raises:
        ConfigurationError: it is refused.
    """
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(f"{name} has to be a sequence of texts, such as ({name!r},)")


def _checked_env(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        texts = isinstance(name, str) and isinstance(value, str)
        if not texts or not name or "=" in name or "\0" in name + value:
            raise ConfigurationError(
                f"env has {name!r} with a {type(value).__name__}; it has to map names to texts"
            )
    return dict(env)
