"""Starting one worker of a pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from snakepit.adapters.adapter import Adapter, DirectWorker, WorkerSpec
from snakepit.adapters.adapter_worker import AdapterWorker
from snakepit.errors import WorkerStartFailed
from snakepit.link.host_calls import HostFunction
from snakepit.supervision import events
from snakepit.telemetry import bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Asks an adapter for workers. What they are told is the same for all; times in seconds."""

    adapter: Adapter
    concurrency: int
    spin: float
    start_timeout: float
    cancel_grace: float
    host_functions: Mapping[str, HostFunction]

    async def launch(self, pool: str, worker_id: str, pool_size: int) -> DirectWorker:
        """Start a worker of the pool of that name and wait until it is ready.

        Raises:
            WorkerStartFailed: it was not ready in time. An adapter may raise anything else.
        """
        spec = WorkerSpec(
            pool=pool,
            worker_id=worker_id,
            pool_size=pool_size,
            concurrency=self.concurrency,
            cancel_grace=self.cancel_grace,
            spin=self.spin,
            host_functions=self.host_functions,
        )
        began_at = time.monotonic()
        if bus.listening:
            events.spawn_started(pool, worker_id)
        try:
            return await self._launch(spec)
        except Exception as error:
            if bus.listening:
                events.spawn_failed(pool, worker_id, error, began_at)
            raise

    async def _launch(self, spec: WorkerSpec) -> DirectWorker:
        try:
            return await asyncio.wait_for(self._new_worker(spec), self.start_timeout)
        except TimeoutError as error:
            # What an adapter knows of a start that is cut off, it notes on the cancellation.
            known = getattr(error.__cause__, "__notes__", ())
            raise WorkerStartFailed(
                f"worker {spec.worker_id} of {self.adapter!r} was not ready within "
                f"{self.start_timeout:g} s (raise start_timeout if it needs longer)"
                + "".join(f": {note}" for note in known)
            ) from error

    async def _new_worker(self, spec: WorkerSpec) -> DirectWorker:
        start_worker = getattr(self.adapter, "start_worker", None)
        worker = None if start_worker is None else await start_worker(spec)
        if hasattr(worker, "start_call"):
            return worker  # type: ignore[return-value]  # a DirectWorker, by that method
        return AdapterWorker(self.adapter, worker, spec.worker_id)
