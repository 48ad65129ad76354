"""`snakepit doctor`: whether pools work on this machine, found out by looking and by trying."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterable

from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.cli.checks import look_at_machine
from snakepit.cli.failures import ExitStatus, describe
from snakepit.cli.finding import Finding, Status, error, ok, warning
from snakepit.cli.output import write, write_json
from snakepit.errors import SnakepitError
from snakepit.pool.pool import Pool

_PATIENCE = 20.0
_CALLS = 200
_LARGE_BYTES = 1 << 24


def run(options: argparse.Namespace) -> int:
    """Look at the machine, try a worker, and tell; return the exit status."""
    findings = [*look_at_machine(), *asyncio.run(try_worker())]
    if options.json:
        write_json([{**each._asdict(), "status": each.status.value} for each in findings])
    else:
        _show(findings)
    is_broken = any(each.status is Status.ERROR for each in findings)
    return ExitStatus.FAILED if is_broken else ExitStatus.OK


def _show(findings: Iterable[Finding]) -> None:
    for finding in findings:
        write(f"{finding.status.value:8} {finding.name}: {finding.text}")
        if finding.remedy:
            write(f"{'':8} -> {finding.remedy}")


async def try_worker() -> list[Finding]:
    """Start a worker of our own, call it, and ask for its stacks."""
    adapter = PythonAdapter("snakepit.cli.probe_worker:Probe")
    started = time.perf_counter()
    findings = []
    try:
        async with Pool(adapter, size=1, name="doctor", start_timeout=_PATIENCE) as pool:
            took_ms = (time.perf_counter() - started) * 1e3
            findings.append(_tell_start(took_ms, is_forked=adapter.template_pid is not None))
            findings.append(await _call(pool))
            findings.append(await _ask_for_stacks(pool))
    except (SnakepitError, OSError) as failure:
        findings.append(
            error(
                "worker",
                f"can't be started and called: {describe(failure)}",
                "correct what is said above, then what this error names",
            )
        )
    return findings


def _tell_start(took_ms: float, *, is_forked: bool) -> Finding:
    if is_forked:
        return ok("worker", f"keeper, template and a forked worker ready after {took_ms:.0f} ms")
    return warning(
        "worker",
        f"spawned, not forked, ready after {took_ms:.0f} ms: each worker imports everything anew",
        "look in the log for what does not survive a fork; on macOS it is always so",
    )


async def _call(pool: Pool) -> Finding:
    times = []
    for number in range(_CALLS):
        before = time.perf_counter()
        await pool.execute("echo", {"value": number}, timeout=_PATIENCE)
        times.append(time.perf_counter() - before)
    before = time.perf_counter()
    await pool.execute("echo", {"value": bytes(_LARGE_BYTES)}, timeout=_PATIENCE)
    large_ms = (time.perf_counter() - before) * 1e3
    return ok(
        "calls",
        f"{statistics.median(times) * 1e6:.0f} us a call, "
        f"{large_ms:.0f} ms for {_LARGE_BYTES >> 20} MiB there and back",
    )


async def _ask_for_stacks(pool: Pool) -> Finding:
    try:
        await pool.dump_stacks(pool.workers()[0].worker_id)
    except SnakepitError as failure:
        return warning(
            "stacks",
            f"a running worker's can't be had: {failure}",
            "see what is said of /proc; all else works without",
        )
    return ok("stacks", "a running worker tells them")
