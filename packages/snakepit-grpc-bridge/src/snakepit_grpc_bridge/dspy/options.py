"""Which options of the language model a call has. Pure.

Precedence: the call's own ``config`` > the session's variables > the global variables. Variables
never become inputs of a signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables import Variable

__all__ = ["lm_options"]

#: Variables with these names are options of the same name.
OPTION_VARIABLES: Final = frozenset({"temperature", "max_tokens", "top_p"})
#: A variable ``ml_x`` is the option ``x``.
OPTION_PREFIX: Final = "ml_"


def lm_options(
    own: Iterable[Variable], shared: Iterable[Variable], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the options for a call with ``config``, in a session with these variables.

    Args:
        own: the session's own variables.
        shared: the global ones.
        config: options given with the call.

    Raises:
        ValidationFailed: ``config`` is no mapping of names.
    """
    given: object = {} if config is None else config
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValidationFailed(
            f"config must be a mapping of option names to values, not {config!r:.100}; for "
            "instance {'temperature': 0.2}"
        )
    return _options_of(shared) | _options_of(own) | dict(given)


def _options_of(variables: Iterable[Variable]) -> dict[str, Any]:
    prefixed: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for variable in variables:
        if variable.name in OPTION_VARIABLES:
            named[variable.name] = variable.value
        elif variable.name.startswith(OPTION_PREFIX):
            prefixed[variable.name.removeprefix(OPTION_PREFIX)] = variable.value
    return prefixed | named
