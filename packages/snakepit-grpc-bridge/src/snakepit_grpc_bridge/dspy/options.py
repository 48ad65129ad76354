"""Which options of the language model a call has. Pure.

Precedence: the call's own ``config`` > the session's variables > the global variables. Variables
never become inputs of a signature. The usual options are checked here, so that a wrong one fails at
the call site; what a provider takes beyond them, only the provider knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from snakepit_grpc_bridge.errors import ValidationFailed, did_you_mean, shown

__all__ = ["OPTION_PREFIX", "OPTION_VARIABLES", "lm_options"]

#: Variables with these names are options of the same name.
OPTION_VARIABLES: Final = frozenset({"temperature", "max_tokens", "top_p"})
#: A variable ``ml_x`` is the option ``x``.
OPTION_PREFIX: Final = "ml_"


def _number(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    def check(value: Any) -> bool:
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        return right and low <= value <= high  # NaN is neither

    return check, f"a number from {low:g} to {high:g}"


def _whole(least: float) -> tuple[Callable[[Any], bool], str]:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return check, "a whole number" + (f" of at least {least}" if math.isfinite(least) else "")


def _is_stop(value: Any) -> bool:
    listed = value if isinstance(value, (list, tuple)) else [value]
    return bool(listed) and all(isinstance(item, str) and item for item in listed)


#: The options of every model: what each takes, and how to say so.
_OPTIONS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "temperature": _number(0, 2),
    "max_tokens": _whole(1),
    "top_p": _number(0, 1),
    "top_k": _whole(1),
    "seed": _whole(-math.inf),
    "stop": (_is_stop, "text or a list of text"),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
}
#: Keyword arguments of ``dspy.LM`` that are no options of a request; the platform decides on them.
_SETTINGS: Final = frozenset(
    "api_base api_key async_engine base_url cache callbacks engine extra_headers headers messages "
    "model model_type num_retries prompt provider timeout".split()
)


def lm_options(
    own: Mapping[str, Any],
    shared: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    *,
    more: bool,
) -> dict[str, Any]:
    """Return the options for a call with ``config``, in a session with these variables.

    Args:
        own: the values of the session's own variables, by name.
        shared: those of the global ones.
        config: options given with the call.
        more: whether the model may know options besides the usual ones, as a provider's does.

    Raises:
        ValidationFailed: ``config`` is no mapping of names, or an option is unknown or has a wrong
            value; the message names it.
    """
    given: object = {} if config is None else config
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValidationFailed(
            f"config must be a mapping of option names to values, not {config!r:.100}; for "
            "instance {'temperature': 0.2}"
        )
    options = _options_of(shared) | _options_of(own) | dict(given)
    for name, value in options.items():
        _check(name, value, more, "config" if name in given else "variables")
    return options


def _check(name: str, value: object, more: bool, source: str) -> None:
    """Check one option; None is the model's own default."""
    if name in _OPTIONS:
        is_right, expected = _OPTIONS[name]
        problem = f"must be {expected}, it was {shown(value)}"
        wrong = value is not None and not is_right(value)
    elif name in _SETTINGS:
        problem = "is no option of a request; the model and its server are settings of the client"
        wrong = True
    else:
        problem = f"is not known{did_you_mean(name, _OPTIONS)} (known: {', '.join(_OPTIONS)})"
        wrong = not more
    if wrong:
        # A variable fails each call until somebody mends it.
        remedy = "; write or delete that variable" if source == "variables" else ""
        raise ValidationFailed(
            f"the option {name!r} of the language model (from the {source}) {problem}{remedy}",
            details={"option": name, "source": source},
        )


def _options_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    prefixed: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for name, value in variables.items():
        if name in OPTION_VARIABLES:
            named[name] = value
        elif name.startswith(OPTION_PREFIX):
            prefixed[name.removeprefix(OPTION_PREFIX)] = value
    return prefixed | named
