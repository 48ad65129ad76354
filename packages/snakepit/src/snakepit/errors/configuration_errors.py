"""Errors of options and adapters: to be corrected before any call can work."""

from __future__ import annotations

from collections.abc import Sequence

from snakepit.errors.base import SnakepitError


class ConfigurationError(SnakepitError):
    """An option or a value given to the library is wrong. Correct what the message names."""

    code = "configuration_error"


class AdapterInvalid(ConfigurationError):
    """An adapter does not satisfy the contract; ``problems`` lists everything that is wrong."""

    code = "adapter_invalid"

    @classmethod
    def of(cls, adapter: str, problems: Sequence[str]) -> AdapterInvalid:
        """Return the error for ``adapter`` (its name) with the full list of ``problems``."""
        listed = "".join(f"\n  - {problem}" for problem in problems)
        return cls(
            f"{adapter} can't be used as an adapter; correct the following:{listed}",
            details={"adapter": adapter, "problems": list(problems)},
        )

    @property
    def problems(self) -> list[str]:
        """One sentence for each problem."""
        return list(self.details.get("problems", ()))


class AdapterInitFailed(ConfigurationError):
    """The adapter's own start code raised; the cause is chained. Correct it, or its config."""

    code = "adapter_init_failed"
