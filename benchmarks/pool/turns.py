"""The runner's side: host processes, and whose turn it is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.pool import machine
from benchmarks.pool.measures import Effort

ROOT = Path(__file__).parents[2]
_START_PATIENCE = 60.0
_STOP_PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one turn gave: named figures, or why it failed."""

    mode: str
    measure: str
    contender: str
    round: int
    figures: dict[str, float]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Contenders that take turns in the same mode. ``sessions`` times their hosts are started
    anew, and each time every measure is made in ``slices`` rounds."""

    mode: str
    turns: Sequence[tuple[str, Sequence[str]]]
    sessions: int
    slices: int
    effort: Effort
    patience: float = 120.0

    def contenders(self) -> list[str]:
        """Who takes part, each once."""
        return list(dict.fromkeys(name for _, names in self.turns for name in names))


class HostFailed(Exception):
    """A host process did not start, died or did not answer."""


class Host:
    """A contender's host process."""

    def __init__(self, name: str, mode: str, environment: dict[str, str]) -> None:
        self.name = name
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-m", "benchmarks.pool.host", name, mode, str(theirs.fileno())]
            self._process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = ours
        self._lines = ours.makefile("rw")
        try:
            self._receive(_START_PATIENCE)
        except HostFailed:
            self.close()
            raise

    def ask(self, measure: str, effort: Effort, patience: float) -> dict[str, float]:
        """Have the contender measured; blocks until it is.

        Raises:
            HostFailed: the measure failed, or the host did.
        """
        self._send({"measure": measure, "effort": asdict(effort)})
        figures: dict[str, float] = self._receive(patience)["figures"]
        return figures

    def close(self) -> None:
        """End it in order, or with force what does not end."""
        family = machine.descendants(self._process.pid)
        with contextlib.suppress(OSError, ValueError):
            self._send({"measure": "close"})
        try:
            self._process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in {self._process.pid, *family, *machine.descendants(self._process.pid)}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(OSError):
            self._lines.close()
        self._channel.close()

    def _send(self, request: dict[str, Any]) -> None:
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()

    def _receive(self, patience: float) -> dict[str, Any]:
        self._channel.settimeout(patience)
        try:
            line = self._lines.readline()
        except OSError as error:
            raise HostFailed(f"{self.name} gave no answer within {patience:g} s") from error
        if not line:
            raise HostFailed(f"the host of {self.name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise HostFailed(answer["error"])
        return answer


def run(section: Section, tell: Callable[[str], None]) -> Iterator[Sample]:
    """Let the contenders of a section take turns."""
    for session in range(section.sessions):
        with contextlib.ExitStack() as stack:
            hosts: dict[str, Host] = {}
            for name in section.contenders():
                try:
                    hosts[name] = Host(name, section.mode, _environment())
                    stack.callback(hosts[name].close)
                except HostFailed as error:
                    tell(f"  {name}: {error}")
                    yield _failure(section, "start", name, session * section.slices, error)
            for number in range(section.slices):
                yield from _round(section, session * section.slices + number, hosts, tell)


def _round(
    section: Section, number: int, hosts: dict[str, Host], tell: Callable[[str], None]
) -> Iterator[Sample]:
    for measure, names in section.turns:
        # Whoever is always first or last would have the caches always warm, or always cold.
        shift = number % len(names) if names else 0
        for name in [*names[shift:], *names[:shift]]:
            if name not in hosts:
                continue
            try:
                figures = hosts[name].ask(measure, section.effort, section.patience)
            except (HostFailed, OSError) as error:
                tell(f"  {measure} of {name}: {error}")
                yield _failure(section, measure, name, number, error)
                continue
            yield Sample(
                mode=section.mode, measure=measure, contender=name, round=number, figures=figures
            )


def _failure(section: Section, measure: str, name: str, number: int, error: Exception) -> Sample:
    return Sample(
        mode=section.mode,
        measure=measure,
        contender=name,
        round=number,
        figures={},
        error=str(error),
    )


def _environment() -> dict[str, str]:
    """What hosts and workers get: this tree's code, and nothing that the peers' caches share."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **os.environ,
        **limits,
        "PYTHONPATH": os.pathsep.join(paths),
        "DSPY_CACHEDIR": str(ROOT / ".build" / "dspy-cache"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
