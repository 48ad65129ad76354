"""The built-in adapter: a Python class in worker processes of its own."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from snakepit._logs import steady_logger
from snakepit.adapters.adapter import WorkerSpec
from snakepit.adapters.devices import Devices, DeviceSlots
from snakepit.adapters.limits import ResourceLimits
from snakepit.adapters.process_adapter import ProcessAdapter, require_texts
from snakepit.errors import ConfigurationError, WorkerStartFailed
from snakepit.link.channels import HostEnds, WorkerEnds, open_channels
from snakepit.link.handshake import WorkerConfig
from snakepit.link.worker import WorkerProcess
from snakepit.options import instance_or_none
from snakepit.processes.linux import IS_LINUX
from snakepit.processes.spec import ProcessSpec
from snakepit.processes.template_client import TemplateLost, UnsafeToFork
from snakepit.processes.templates import SharedTemplate
from snakepit.processes.tree import ProcessTree
from snakepit.wire.codec import encode
from snakepit.worker.target import split_target

# Of the code, over all adapters: templates of different ones are never shared.
_generations = itertools.count(1)
logger = steady_logger("snakepit.worker")
# A module that asks torch at import whether there is a device must not initialize CUDA in the
# template by that (torch.cuda.is_available).
_ASKING_FOR_DEVICES = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class PythonAdapter(ProcessAdapter):
    """Runs the commands of a Python class in worker processes.

    The class is imported in the workers only, never in the host. By default the workers are forked
    from a *template*: a process that has imported the class's module (and ``preload``) and run the
    class's ``warm()`` classmethod if it has one, so that a new worker is ready in milliseconds and
    shares that memory. If what is imported does not survive a fork (threads, gRPC, CUDA), or leaves
    open what the workers would share (connections, event loops, SQLite databases), a warning names
    it and workers are spawned one by one.

    Args:
        target: the class, as ``"package.module:Class"``. It is constructed once in each worker,
            with ``config``.
        config: keyword arguments for the class; plain data.
        preload: further modules the template imports.
        warm_config: keyword arguments for ``warm()``; plain data.
        env: variables added to the environment that workers inherit.
        withhold: variables they do not inherit, as patterns such as ``"*_API_KEY"``; ``("*",)``
            withholds all.
        python: another interpreter, in whose environment snakepit is installed; the host's own by
            default, whose ``sys.path`` the workers get too.
        start: ``"template"`` or ``"spawn"``.
        output: where what the workers' code prints goes. ``"log"``: to logging, and its last lines
            into the error of a crash. ``"inherit"``: to this process's own stdout and stderr.
        limits: what each worker may use; by default as much as this process.
        devices: the accelerators that workers are given, each its own or a share.

    Raises:
        ConfigurationError: an argument is wrong; nothing was started.
        EncodeError: ``config`` or ``warm_config`` holds a value that can't travel.

    Example::

        adapter = PythonAdapter("textwrap_worker:Wrapper", config={"width": 60})
    """

    def __init__(
        self,
        target: str,
        *,
        config: Mapping[str, Any] | None = None,
        preload: Sequence[str] = (),
        warm_config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        withhold: Sequence[str] = (),
        python: str | os.PathLike[str] | None = None,
        start: Literal["template", "spawn"] = "template",
        output: Literal["log", "inherit"] = "log",
        limits: ResourceLimits | None = None,
        devices: Devices | None = None,
    ) -> None:
        _require_importable(target)
        _require_one_of("start", start, ("template", "spawn"))
        _require_one_of("output", output, ("log", "inherit"))
        require_texts("preload", preload)
        super().__init__(config=config, env=env, withhold=withhold, limits=limits)
        self._target = target
        self._preload = tuple(preload)
        self._warm_config = encode(dict(warm_config or {}), root="warm_config")
        self._streams = _open_streams() if output == "inherit" else {}
        self._python = None if python is None else _executable(python)
        self._may_fork = start == "template" and IS_LINUX
        self._forks = self._may_fork
        self._devices = instance_or_none("devices", devices, Devices)
        if devices is not None and devices.variable in self._env:
            raise ConfigurationError(
                f"env has {devices.variable}, which devices= sets for each worker; leave one out"
            )
        self._slots = DeviceSlots(devices) if devices is not None else None
        self._pool_size = 1
        self._template: SharedTemplate | None = None
        self._spec: ProcessSpec | None = None

    def __repr__(self) -> str:
        return f"PythonAdapter({self._target!r})"

    @property
    def template_pid(self) -> int | None:
        """The process id of the template that workers are forked from, if it is up."""
        return None if self._template is None else self._template.pid

    @property
    def worker_limit(self) -> int | None:
        """How many workers there are devices for at a time, None for no limit."""
        return None if self._devices is None else self._devices.worker_limit

    async def start_worker(self, spec: WorkerSpec) -> WorkerProcess:
        """Start one worker process and wait until it is ready; the pool calls this."""
        self._pool_size = spec.pool_size
        if self._spec is None:
            self._spec = self._process_spec()
        if self._slots is None:
            return await self._start_despite_template(spec, self._spec, ())
        slots, worker_id = self._slots, spec.worker_id
        devices = slots.take(worker_id)
        try:
            worker = await self._start_despite_template(spec, self._spec, devices)
        except BaseException:
            slots.release(worker_id)
            raise
        worker.gone.add_done_callback(lambda _: slots.release(worker_id))
        return worker

    async def _start_despite_template(
        self, spec: WorkerSpec, process_spec: ProcessSpec, devices: tuple[str, ...]
    ) -> WorkerProcess:
        try:
            return await self._start_worker(spec, process_spec, devices)
        except TemplateLost:
            # On channels of its own: the worker that was asked for may exist after all.
            try:
                return await self._start_worker(spec, process_spec, devices)
            except TemplateLost as error:
                raise WorkerStartFailed(
                    f"the template process of {self._target} died twice while it was to fork "
                    f"{spec.worker_id}"
                ) from error

    async def _start_worker(
        self, spec: WorkerSpec, process_spec: ProcessSpec, devices: tuple[str, ...]
    ) -> WorkerProcess:
        config = WorkerConfig(
            target=self._target,
            config=self._new_config(),
            concurrency=spec.concurrency,
            spin=spec.spin,
            sys_path=process_spec.sys_path(),
            limits={} if self._limits is None else self._limits.to_wire(),
            devices=devices,
            device_variable=None if self._devices is None else self._devices.variable,
        )
        start = functools.partial(self._start_process, process_spec)
        return await self._start_connected(spec, config, start)

    def _new_config(self) -> Mapping[str, Any]:
        """The arguments with which one worker constructs the class."""
        return self._config

    def _open_channels(self) -> tuple[HostEnds, WorkerEnds]:
        return open_channels(self._inherited())

    def _inherited(self) -> Mapping[int, int]:
        """What workers get of this process's descriptors, by the numbers they have there."""
        return self._streams

    async def reload(self) -> None:
        """Have the workers that start from now on see the code as it is now; the pool calls this.

        Raises:
            WorkerStartFailed: it can't be imported, or ``warm()`` raises; workers go on to be
                started from the code as it was.
        """
        if self._spec is None:
            return  # no worker has been started yet
        spec = replace(self._process_spec(), generation=next(_generations))
        if self._may_fork:
            template = SharedTemplate.acquire(await self._living_tree(), spec)
            try:
                await template.living()
            except UnsafeToFork as error:
                template.release()
                self._stop_forking(error)
            except BaseException:
                template.release()
                raise
            else:
                old, self._template, self._forks = self._template, template, True
                if old is not None:
                    old.release()
        self._spec = spec

    async def terminate(self, reason: str) -> None:
        """End the template, and the keeper if no other pool of this loop uses it."""
        self._spec = None
        await super().terminate(reason)

    async def _release_processes(self) -> None:
        if self._template is not None:
            self._template.release()
            self._template = None
        await super()._release_processes()

    async def _start_process(self, spec: ProcessSpec, tree: ProcessTree, ends: WorkerEnds) -> int:
        if self._forks:
            if self._template is None:
                self._template = SharedTemplate.acquire(tree, spec)
            try:
                template = await self._template.living()
            except UnsafeToFork as error:
                self._stop_forking(error)
            else:
                return await template.fork(ends.fds, list(ends.inherited))
        argv = spec.worker_argv(ends.inherited)
        return await tree.spawn(argv, env=spec.env, cwd=spec.cwd, fds=ends.fds)

    def _stop_forking(self, reason: UnsafeToFork) -> None:
        if self._forks:
            self._forks = False
            logger.warning("%s is not forked but spawned: %s", self._target, reason)

    def _process_spec(self) -> ProcessSpec:
        environment = self._environment(self._pool_size)
        if self._devices is not None:
            environment = _ASKING_FOR_DEVICES | environment
        return ProcessSpec(
            target=self._target,
            python=self._python,
            preload=self._preload,
            warm=self._warm_config,
            env=environment,
        )


def _open_streams() -> dict[int, int]:
    """Which of this process's descriptors are to be stdout and stderr of a worker."""
    streams = enumerate((sys.__stdout__, sys.__stderr__), start=1)
    # None: it was closed when the interpreter started, and its number may be another file's by now.
    return {
        number: stream.fileno()
        for number, stream in streams
        if stream is not None and not stream.closed
    }


def _require_importable(target: str) -> None:
    module, name = split_target(target)
    if module == "__main__":
        raise ConfigurationError(
            f"{target!r} is of the program that runs, and in a worker that is another one; write "
            f"the name of its file: 'main:{name}', if that is main.py",
            details={"target": target},
        )


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        listed = " or ".join(map(repr, allowed))
        raise ConfigurationError(f"{name} is {value!r}; it has to be {listed}")


def _executable(python: str | os.PathLike[str]) -> str:
    path = os.fspath(python)
    if not (Path(path).is_file() and os.access(path, os.X_OK)):
        raise ConfigurationError(
            f"python={path!r} is no executable file; give the path of an interpreter, such as "
            "'.venv/bin/python'",
            details={"python": path},
        )
    # Not resolved: a virtual environment's interpreter is a link, and finds its packages by its own
    # path.
    return os.path.abspath(path)
