"""Where a rule gets the programs that it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snakepit.testing.conformance.host import Host
from snakepit.testing.conformance.program import Program
from snakepit.testing.conformance.rules import NotOffered


class Bench:
    """Starts the program under test as often as rules need it. Close it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        target: str,
        env: Mapping[str, str] | None,
        patience: float,
    ) -> None:
        self.command = tuple(command)
        self._target = target
        self._env = env
        self._patience = patience
        self._shared: Host | None = None
        self._fresh: list[Host] = []

    def fresh(self) -> Host:
        """One that was just started, for the running rule alone; nothing is said yet."""
        program = Program(self.command, env=self._env, patience=self._patience)
        host = Host(program, self._target)
        self._fresh.append(host)
        return host

    def ready(self) -> Host:
        """One that serves one call at a time and has none; earlier rules may have used it."""
        if self._shared is None:
            program = Program(self.command, env=self._env, patience=self._patience)
            self._shared = Host(program, self._target)
            self._shared.start()
        return self._shared

    def offering(self, feature: str) -> Host:
        """As ``ready``, of a program that offers a feature.

        Raises:
            NotOffered: it does not.
        """
        host = self.ready()
        if feature not in host.features:
            raise NotOffered(f"it does not name {feature!r} among its features")
        return host

    def tidy(self) -> None:
        """A rule was kept: what it has left is looked at, and what it has started is ended.

        Raises:
            Broken: frames came that belong to nothing.
        """
        self._end_fresh()
        if self._shared is not None and self._shared.spent:
            self._end_shared()
        elif self._shared is not None:
            self._shared.quiet("all calls have ended")

    def reset(self) -> None:
        """A rule was broken: the next one begins with a new program."""
        self._end_fresh()
        self._end_shared()

    def last_output(self) -> str:
        """What the programs that are up have printed last."""
        hosts = [*self._fresh, *([self._shared] if self._shared else [])]
        return "\n".join(filter(None, (host.program.output().strip() for host in hosts)))

    def _end_fresh(self) -> None:
        while self._fresh:
            self._fresh.pop().program.close()

    def _end_shared(self) -> None:
        if self._shared is not None:
            self._shared.program.close()
            self._shared = None
