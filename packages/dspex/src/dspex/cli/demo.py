"""`dspex demo`: the tour. Everything is live, and each step checks what it shows."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from dspex.cli import running
from dspex.cli.failures import ExitCode

if TYPE_CHECKING:
    from dspex.client import AsyncClient

QUESTION = "What is the capital of France?"
REVIEW = "The room was clean, the staff were friendly and the breakfast was delicious."
NEWS = "Tim Cook, the CEO of Apple, met Angela Merkel in Berlin."
PROMPT = "Write one sentence about a river."
STOCK = {"apples": 3, "pears": 7}
#: Seconds within which a step must show what it promises; generous, for a busy machine.
PATIENCE = 60.0


class NotAsPromised(Exception):
    """A step's result is not what the tour promises."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One row of the table at the end."""

    title: str
    shown: str
    passed: bool
    seconds: float


@dataclass
class Tour:
    """The state of one tour."""

    client: AsyncClient
    tell: Callable[[str], None]
    results: list[StepResult] = field(default_factory=list)

    async def step(self, title: str, action: Callable[[], Awaitable[str]]) -> None:
        """Run one step, tell what it showed, and go on whatever happened."""
        from dspex.cli.failures import describe
        from dspex.errors import SnakepitError

        started = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                shown, passed = await action(), True
        except (SnakepitError, NotAsPromised, TimeoutError) as error:
            shown, passed = str(error) or describe(error), False
        elapsed = time.perf_counter() - started
        self.results.append(StepResult(title=title, shown=shown, passed=passed, seconds=elapsed))
        self.tell(f"{'ok  ' if passed else 'FAIL'} {title} ({_seconds(elapsed)})\n       {shown}")

    # --- the steps -----------------------------------------------------------------------------

    async def start(self) -> str:
        """Start the model's process and the workers, which import DSPy, at the same time."""
        await running.open_visibly(self.client)
        workers = len(self.client.platform.pool.workers())
        model = self.client.platform.lm.model
        return f"{workers} workers with DSPy, and a process with {model.label}"

    async def ask(self) -> str:
        """Answer a question."""
        answer = await self.client.ask(QUESTION)
        expect("paris" in answer.casefold(), f"{QUESTION} -> {answer}")
        return f"{QUESTION} -> {answer}"

    async def classify(self) -> str:
        """Choose a category."""
        category = await self.client.classify(REVIEW, ["positive", "negative"])
        expect(category == "positive", f"{REVIEW} -> {category}")
        return f'"{REVIEW}" -> {category}'

    async def extract(self) -> str:
        """Find entities."""
        found = await self.client.extract_entities(NEWS)
        expected = {
            "people": ["Tim Cook", "Angela Merkel"],
            "organizations": ["Apple"],
            "locations": ["Berlin"],
        }
        expect(found == expected, f"{NEWS} -> {found}")
        return ", ".join(f"{name}: {' and '.join(values)}" for name, values in found.items())

    async def call_back(self) -> str:
        """Let code in a worker call a function of this process."""
        callers: list[str] = []

        def stock(item: str) -> int:
            callers.append(f"this function ran in process {os.getpid()}")
            return STOCK[item]

        await self.client.register_tool("stock", stock)
        said = await self.client.call("dspex.demo_worker", "count_in_stock", ["pears"])
        expect(said.startswith("7 pears") and str(os.getpid()) not in said, said)
        expect(len(callers) == 1, f"the host function ran {len(callers)} times")
        return f"{said}; {callers[0]}"

    async def set_variable(self) -> str:
        """Change an answer by a session's variable, here an option of the language model."""
        async with await self.client.start_session() as session:
            before = await session.generate(PROMPT)
            await session.set_variable("max_tokens", 5)
            after = await session.generate(PROMPT)
        shorter = before.startswith(after) and len(after) < len(before)
        expect(shorter, f"{before!r} did not become shorter: {after!r}")
        return f'"{before}" with max_tokens = 5 becomes "{after}"'

    async def kill(self) -> str:
        """Kill a worker in the middle of a call; that call alone fails."""
        from dspex.errors import WorkerLost

        began: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def long_work_began(pid: int) -> None:
            began.set_result(pid)

        await self.client.register_tool("long_work_began", long_work_began)
        call = asyncio.ensure_future(self.client.call("dspex.demo_worker", "work_for_long"))
        await asyncio.wait([call, began], return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            await call
        os.kill(began.result(), signal.SIGKILL)
        killed = time.perf_counter()
        try:
            await call
        except WorkerLost as error:
            after_ms = (time.perf_counter() - killed) * 1000
            expect(error.signal == "SIGKILL", f"the error does not name the signal: {error}")
            return f"{type(error).__name__} after {after_ms:.3g} ms: {error}"
        raise NotAsPromised("the call of a killed worker returned")

    async def go_on(self) -> str:
        """Answer the next question."""
        shown = await self.ask()
        wanted = self.client.settings.workers
        return f"{shown} ({len(self.client.platform.pool.workers())} of {wanted} workers)"

    async def stop(self) -> str:
        """End everything, and look whether anything is left."""
        lm_pool = self.client.platform.lm.pool
        pools = [self.client.platform.pool, *([lm_pool] if lm_pool else [])]
        pids = [worker.pid for pool in pools for worker in pool.workers()]
        await self.client.close()
        left = [pid for pid in pids if is_running(pid)]
        expect(not left, f"processes are left: {left}")
        return f"{len(pids)} processes ended, none is left"


def expect(condition: bool, shown: str) -> None:
    """Fail a step, with what it got instead."""
    if not condition:
        raise NotAsPromised(f"not as promised: {shown}")


def is_running(pid: int | None) -> bool:
    """Say whether there is a process of that id."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def run_tour(client: AsyncClient, tell: Callable[[str], None]) -> list[StepResult]:
    """Run all steps and return what they showed. If the start fails, nothing else is tried."""
    tour = Tour(client, tell)
    try:
        await tour.step("import DSPy, load the model", tour.start)
        if not tour.results[0].passed:
            return tour.results
        await tour.step("ask a question", tour.ask)
        await tour.step("classify a text", tour.classify)
        await tour.step("extract entities", tour.extract)
        await tour.step("a worker calls the host", tour.call_back)
        await tour.step("a variable changes an answer", tour.set_variable)
        await tour.step("kill a worker during its call", tour.kill)
        await tour.step("go on", tour.go_on)
        await tour.step("stop", tour.stop)
    finally:
        await client.close()
    return tour.results


def demo(
    model: running.Model = None,
    workers: running.Workers = None,
    api_base: running.ApiBase = None,
    debug: running.Debug = False,
) -> None:
    """Take the tour: every part of the platform, live, in some seconds."""

    def work() -> None:
        from dspex.client import AsyncClient

        common = running.Common(model=model, workers=workers, api_base=api_base)
        allowed = ("dspy", "dspex.demo_worker")
        client = AsyncClient(common.settings(workers=2, import_allow=allowed))
        if client.settings.model == "embedded":
            typer.echo(f"{running.NOTICE}\n")
        began = time.perf_counter()
        results = asyncio.run(run_tour(client, typer.echo))
        show_table(results, time.perf_counter() - began)
        if not all(result.passed for result in results):
            raise typer.Exit(ExitCode.FAILED)

    running.failing_with_exit_code(work, debug=debug)


def show_table(results: list[StepResult], total: float) -> None:
    """Print what happened and how long it took; on a terminal with rich."""
    rows = [
        (result.title, "ok" if result.passed else "FAILED", _seconds(result.seconds))
        for result in results
    ]
    passed = sum(result.passed for result in results)
    rows.append(("together", f"{passed} of {len(results)}", _seconds(total)))
    typer.echo()
    if sys.stdout.isatty():
        show_rich_table(rows)
        return
    for title, outcome, seconds in rows:
        typer.echo(f"{title:<32} {outcome:<8} {seconds:>9}")


def _seconds(duration: float) -> str:
    return f"{round(duration, 3):.3g} s"


def show_rich_table(rows: list[tuple[str, str, str]]) -> None:
    """Print the table with colours."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "result", "time")
    for title, outcome, seconds in rows:
        colour = "red" if outcome == "FAILED" else "green"
        table.add_row(title, f"[{colour}]{outcome}[/]", seconds)
    Console().print(table)
