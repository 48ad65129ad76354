"""What can go wrong between a program and its language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snakepit.errors import Outcome
from snakepit_grpc_bridge.errors import BridgeError

__all__ = ["LmCallFailed", "ModelInstallFailed", "ModelUnreadable", "ScriptExhausted"]


class ModelUnreadable(BridgeError):
    """The model's file is there, but is no model this engine can load. Get the file again."""

    code = "model_unreadable"


class ModelInstallFailed(BridgeError):
    """The weights of the embedded model could not be installed. The message says what to do."""

    code = "model_install_failed"


class ScriptExhausted(BridgeError):
    """A scripted model was asked for more than its script holds. Add a response, or ask less."""

    code = "script_exhausted"


class LmCallFailed(BridgeError):
    """A language model refused or failed a call.

    ``kind`` says how, in the words of DSPy's own errors: "auth", "billing", "rate_limit",
    "context_length", "invalid_request", "unsupported", "timeout", "server", "transport",
    "configuration" or "unknown".
    """

    code = "lm_call_failed"
    outcome = Outcome.UNKNOWN

    @classmethod
    def of(cls, kind: str, message: str, *, model: str, **more: Any) -> LmCallFailed:
        """Return the error of ``kind`` for ``model``; ``more`` is kept in the details."""
        details: Mapping[str, Any] = {
            "kind": kind,
            "model": model,
            **{key: value for key, value in more.items() if value is not None},
        }
        return cls(
            f"the model {model!r} failed: {message}",
            retryable=kind in {"rate_limit", "server", "transport"},
            details=details,
        )

    @property
    def kind(self) -> str:
        """How it failed."""
        return str(self.details.get("kind", "unknown"))
