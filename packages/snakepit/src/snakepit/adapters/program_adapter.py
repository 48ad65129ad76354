"""The adapter for workers that are programs, in any language."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from snakepit.adapters.adapter import WorkerSpec
from snakepit.adapters.limits import ResourceLimits
from snakepit.adapters.process_adapter import ProcessAdapter, require_texts
from snakepit.errors import ConfigurationError, VersionMismatch, WorkerStartFailed
from snakepit.link.channels import WorkerEnds
from snakepit.link.handshake import WorkerConfig
from snakepit.link.worker import WorkerProcess
from snakepit.processes.tree import ProcessTree


class ProgramAdapter(ProcessAdapter):
    """Runs a program of any language as a pool's workers, one process for each.

    The program has to speak the protocol of PROTOCOL.md on the descriptors 3 and 4 that it is born
    with; docs/other-languages.md tells how to write one, and has a library for Node. It is started,
    watched and replaced as the workers of PythonAdapter are: its output goes to logging, its end is
    reported with the exit code or signal, and it ends with the host.

    Args:
        command: the program and its arguments. It is looked for in ``PATH`` and runs in the folder
            that this process is in now.
        config: what the program is configured with; plain data, which it gets when it starts.
        env: variables added to the environment that workers inherit.
        withhold: variables they do not inherit, as patterns such as ``"*_API_KEY"``; ``("*",)``
            withholds all.
        limits: what each worker may use; by default as much as this process. They hold from the
            program's first instruction. One that gets no more memory ends as it likes, which the
            pool sees as the death of a worker.

    Raises:
        ConfigurationError: an argument is wrong, or there is no such program; nothing was started.
        EncodeError: ``config`` holds a value that can't travel to the workers.

    Example::

        adapter = ProgramAdapter(["node", "worker.js"], config={"locale": "de"})
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        withhold: Sequence[str] = (),
        limits: ResourceLimits | None = None,
    ) -> None:
        require_texts("command", command)
        if not command:
            raise ConfigurationError("command is empty; it has to be a program and its arguments")
        super().__init__(config=config, env=env, withhold=withhold, limits=limits)
        self._command = tuple(command)
        self._program = _found(command[0], self._environment(pool_size=1).get("PATH"))
        self._folder = os.getcwd()

    def __repr__(self) -> str:
        return f"ProgramAdapter({list(self._command)!r})"

    async def start_worker(self, spec: WorkerSpec) -> WorkerProcess:
        """Start the program once and wait until it is ready; the pool calls this.

        Raises:
            WorkerStartFailed: it can't be executed, died first, or said that it can't serve.
            VersionMismatch: it speaks no version of the protocol that this host speaks.
        """
        environment = self._environment(spec.pool_size)
        config = WorkerConfig(
            target=shlex.join(self._command),
            config=self._config,
            concurrency=spec.concurrency,
            spin=spec.spin,
            sys_path=None,
        )

        async def start(tree: ProcessTree, ends: WorkerEnds) -> int:
            return await tree.spawn(
                [self._program, *self._command[1:]],
                env=environment,
                cwd=self._folder,
                fds=ends.fds,
                limits=None if self._limits is None else self._limits.to_wire(),
            )

        try:
            return await self._start_connected(spec, config, start)
        except VersionMismatch as error:
            raise VersionMismatch(
                f"{config.target} speaks the protocol versions {error.details['theirs']}, this "
                f"host {error.details['ours']}; take a version of its library that has one of them",
                details=error.details,
            ) from error
        except WorkerStartFailed as error:
            raise WorkerStartFailed(
                f"{config.target}: {error.message}", details=error.details
            ) from error


def _found(program: str, path: str | None) -> str:
    found = shutil.which(program, path=path)
    if found is None:
        raise ConfigurationError(
            f"there is no program {program!r} that could be executed; install it, or give its path",
            details={"program": program},
        )
    return os.path.abspath(found)
