"""DSPy as it is in a worker process: no caches, no history, no global settings. Worker side only.

Everything a program can see of DSPy's settings comes from one explicit context for each call. What
DSPy keeps for a whole process would be shared by all sessions that the worker serves.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.call_state import serving
from snakepit_grpc_bridge.errors import OutputFieldMissing

__all__ = ["call_context", "load_dspy", "program_context", "typed_errors", "warm_up"]

#: Below a file that is no folder: whatever wants a cache there fails instead of leaving it behind.
_NO_CACHE = f"{os.devnull}/dspy-caches-are-off-in-workers"

_lock = threading.Lock()
_loaded: list[Any] = []


def load_dspy() -> Any:
    """Import DSPy, made safe for a shared process, and return the module. Idempotent.

    Raises:
        ConfigurationError: it is not installed here.
    """
    with _lock:
        if not _loaded:
            _loaded.append(_import_dspy())
        return _loaded[0]


def _import_dspy() -> Any:
    # Before the import, which reads them: litellm would fetch a price list from the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["DSPY_CACHEDIR"] = _NO_CACHE
    try:
        import dspy
    except ImportError as error:
        raise ConfigurationError(
            f"DSPy can't be imported by the workers ({error}); install it in their environment: "
            "pip install 'snakepit-grpc-bridge[dspy]'"
        ) from error
    # Two sessions must not share answers: dspy.LM caches in memory by default.
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    _refuse_global_settings(dspy)
    return dspy


def _refuse_global_settings(dspy: Any) -> None:
    """Make ``dspy.configure`` and its like raise, on every thread and through every alias."""
    # configure, settings.configure and assignments to settings all ask this method first.
    type(dspy.settings)._ensure_configure_allowed = _refuse_configure
    dspy.configure_cache = dspy.clients.configure_cache = _refuse_configure_cache
    try:
        dspy.configure()
    except ConfigurationError:
        return
    raise ConfigurationError(
        f"DSPy {dspy.__version__} can't be kept from changing settings for all sessions of a "
        "worker; install dspy==3.4.*"
    )


def _refuse_configure(_settings: object) -> NoReturn:
    raise ConfigurationError(
        "dspy.configure(...) is refused in a worker process, since other sessions' calls run in it "
        "too. Write `with dspy.context(lm=..., adapter=...):` around the code that needs other "
        "settings; the model itself is a setting of the platform (model=...)"
    )


def _refuse_configure_cache(*_args: object, **_options: object) -> NoReturn:
    raise ConfigurationError(
        "dspy.configure_cache(...) is refused in a worker process: its caches would share answers "
        "between sessions. Remove the call; DSPy's caches are off here"
    )


@contextmanager
def program_context(lm: Any, adapter: Any = None) -> Iterator[None]:
    """Run programs with these and DSPy's defaults, whatever an enclosing context holds."""
    dspy = load_dspy()
    from dspy.dsp.utils.settings import DEFAULT_CONFIG

    settings: dict[str, Any] = copy.deepcopy(dict(DEFAULT_CONFIG))
    # The trace is a new list for each call, which the call takes with it.
    settings |= {"lm": lm, "adapter": adapter, "disable_history": True, "trace": []}
    with dspy.context(**settings):
        yield


@contextmanager
def call_context(spec: Mapping[str, Any] | None) -> Iterator[None]:
    """Run programs with the language model of a call; None means none.

    ``spec`` holds ``lm``, what the platform's model is, ``options`` for this call, and the
    ``state`` of its session.
    """
    if spec is None:
        with program_context(None):
            yield
        return
    from snakepit_grpc_bridge.lm.worker import program_lm

    load_dspy()
    lm, adapter = program_lm(spec["lm"])
    if spec["options"]:
        lm = lm.copy(**spec["options"])
    with program_context(lm, adapter), serving(spec.get("state")):
        yield


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn DSPy's errors about the model and its answers into the platform's own."""
    dspy = load_dspy()
    from dspy.utils.exceptions import AdapterParseError

    from snakepit_grpc_bridge.lm.worker import service_error

    try:
        yield
    except dspy.LMError as error:
        # What the LM service said; DSPy's error only wraps it.
        known = service_error(error)
        if known is None:
            raise
        raise known from known.__cause__
    except AdapterParseError as error:
        parsed = error.parsed_result or {}
        wanted = list(error.signature.output_fields)
        raise OutputFieldMissing.of(
            error.signature.signature, [name for name in wanted if name not in parsed] or wanted
        ) from error


def warm_up() -> None:
    """Import and exercise what a first call would pay for. Leaves no thread and no loop."""
    dspy = load_dspy()
    from snakepit_grpc_bridge.lm.worker import program_lm

    question = {"question": "Is this a rehearsal?"}
    answer = {"reasoning": "It is.", "answer": "yes"}
    script = {"responses": [answer] * 3, "matches": {}}
    lm, _ = program_lm({"kind": "scripted", "name": "rehearsal", "script": script})
    with program_context(lm), typed_errors():
        dspy.Predict("question -> answer")(**question)
        dspy.ChainOfThought("question -> answer")(**question)
        asyncio.run(dspy.Predict("question -> answer").acall(**question))
    program_lm({"kind": "native", "name": "rehearsal", "small": True})
