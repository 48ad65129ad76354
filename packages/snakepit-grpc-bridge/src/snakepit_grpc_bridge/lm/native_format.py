"""Between DSPy's canonical requests, as plain data, and llama.cpp's. Pure; imports neither.

A request is what ``dspy``'s ``request_to_dict`` makes. What llama.cpp can do beyond it is asked for
in ``config.extensions["native"]``, a mapping with any of:

``plain``
    true: the last message is a raw prompt to be continued; else the model's chat template is used.
``grammar``
    the answer follows this grammar, in llama.cpp's GBNF.
``schema``
    the answer is JSON that follows this schema.
``repeat_penalty``
    a factor above 1 that keeps long texts from repeating themselves.
``score``
    ``{"choices": [...], "baselines": [...]}``: nothing is generated; each choice is scored by its
    log-probability as the continuation of the prompt, minus its mean one after the baselines
    (content-free prompts), and the answer is the best one. ``provider_data`` holds
    ``{"choice": index, "scores": [...]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snakepit_grpc_bridge.lm.errors import LmCallFailed
from snakepit_grpc_bridge.lm.grammars import gbnf

__all__ = [
    "Collected",
    "NativeRequest",
    "candidates",
    "forced",
    "read_request",
    "response",
    "stream_event",
]

#: What an answer may have when the request does not say.
DEFAULT_MAX_TOKENS = 512
_PASSED_ON = ("top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
#: Far above any difference of logits, so that of the allowed tokens the preferred ones win.
_PREFERENCE = 50.0
#: Next tokens that are looked at before a continuation is forced.
_CANDIDATES = 100
_ERROR_KINDS = {
    "exceed_context_size_error": "context_length",
    "invalid_request_error": "invalid_request",
    "not_supported_error": "unsupported",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRequest:
    """A request as llama.cpp takes it.

    Attributes:
        model: the name to answer with.
        chat: whether ``body`` is for the chat interface, else for the completion one.
        body: what llama.cpp takes.
        choices: for a score: the continuations to compare, else None.
        baselines: for a score: content-free prompts.
    """

    model: str
    chat: bool
    body: dict[str, Any]
    choices: tuple[str, ...] | None = None
    baselines: tuple[str, ...] = ()


def read_request(request: Mapping[str, Any]) -> NativeRequest:
    """Read a canonical request.

    Raises:
        LmCallFailed: it asks for tools, pictures or others that this engine does not have.
    """
    model = str(request.get("model", "native"))
    if request.get("tools"):
        raise LmCallFailed.of(
            "unsupported",
            "local models take no tools here; use dspy.ReAct's text form",
            model=model,
        )
    config = request.get("config") or {}
    native = (config.get("extensions") or {}).get("native") or {}
    body = _sampling(config) | _constraints(config, native)
    messages = _messages(request, model)
    score = native.get("score")
    if native.get("plain"):
        body["prompt"] = messages[-1]["content"]
    else:
        body["messages"] = messages
    if score is not None and "prompt" not in body:
        raise LmCallFailed.of("invalid_request", "a score needs a plain prompt", model=model)
    return NativeRequest(
        model=model,
        chat="messages" in body,
        body=body,
        choices=tuple(score["choices"]) if score is not None else None,
        baselines=tuple(score.get("baselines", ())) if score is not None else (),
    )


def _sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "max_tokens": config.get("max_tokens") or DEFAULT_MAX_TOKENS,
        # Unasked-for randomness would make every failure unrepeatable.
        "temperature": config.get("temperature") or 0.0,
    }
    if config.get("stop"):
        body["stop"] = list(config["stop"])
    body |= {key: config[key] for key in _PASSED_ON if config.get(key) is not None}
    return body


def _constraints(config: Mapping[str, Any], native: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    wanted = config.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        body["json_schema"] = wanted.get("schema", {})
    elif wanted.get("type") == "json_object":
        body["json_schema"] = {"type": "object"}
    if "schema" in native:
        body["json_schema"] = native["schema"]
    if "grammar" in native:
        body["grammar"] = native["grammar"]
    if "repeat_penalty" in native:
        body["repeat_penalty"] = native["repeat_penalty"]
    return body


def _messages(request: Mapping[str, Any], model: str) -> list[dict[str, str]]:
    messages = []
    system = request.get("system")
    if system:
        messages.append({"role": "system", "content": _text(system, model)})
    for message in request["messages"]:
        messages.append({"role": message["role"], "content": _text(message["parts"], model)})
    return messages


def _text(content: str | Sequence[Mapping[str, Any]], model: str) -> str:
    if isinstance(content, str):
        return content
    other = sorted({str(part["type"]) for part in content} - {"text"})
    if other:
        raise LmCallFailed.of(
            "unsupported", f"local models take text alone here, not {', '.join(other)}", model=model
        )
    return "".join(part["text"] for part in content)


def candidates(prompt: str) -> dict[str, Any]:
    """Return the request for the log-probabilities of the likeliest next tokens."""
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0.0, "logprobs": _CANDIDATES}


def forced(prompt: str, continuation: str) -> dict[str, Any]:
    """Return the request that makes the model say ``continuation``, to read its log-probabilities.

    The grammar forces the text, the preference its usual tokens. Both leave the reported
    log-probabilities alone: those are the model's own.
    """
    return {
        "prompt": prompt,
        # A token has at least one byte.
        "max_tokens": len(continuation.encode()),
        "temperature": 0.0,
        "grammar": f"root ::= {gbnf(continuation)}",
        "logit_bias": [[continuation, _PREFERENCE]],
        "logprobs": 1,
    }


class Collected:
    """What llama.cpp's chunks of one answer add up to."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._model = model
        self._chat = chat
        self._text: list[str] = []
        self.finish_reason = "stop"
        self.usage: dict[str, int] = {}
        self.logprob = 0.0
        self.next_tokens: dict[str, float] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Take a chunk; return the text it brought.

        Raises:
            LmCallFailed: the chunk is an error.
        """
        if "error" in chunk or "choices" not in chunk:
            error = chunk.get("error", chunk)
            kind = _ERROR_KINDS.get(str(error.get("type")), "server")
            raise LmCallFailed.of(kind, str(error.get("message", error)), model=self._model)
        self._count(chunk.get("usage") or {})
        piece = ""
        for choice in chunk["choices"]:
            piece += self._take(choice)
        if piece:
            self._text.append(piece)
        return piece

    def _take(self, choice: Mapping[str, Any]) -> str:
        reason = choice.get("finish_reason")
        if reason is not None:
            self.finish_reason = "length" if reason == "length" else "stop"
        for token in (choice.get("logprobs") or {}).get("content") or ():
            # The end of the text has no bytes and is no part of what is scored.
            if token["bytes"]:
                self.logprob += token["logprob"]
            self.next_tokens = {each["token"]: each["logprob"] for each in token["top_logprobs"]}
        if self._chat:
            return (choice.get("delta") or {}).get("content") or ""
        return choice.get("text") or ""

    def _count(self, usage: Mapping[str, Any]) -> None:
        if "prompt_tokens" in usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self.usage = {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
                "cache_read_tokens": cached,
            }


def response(
    model: str, text: str, collected: Collected | None = None, **data: Any
) -> dict[str, Any]:
    """Return a canonical response, as plain data."""
    plain: dict[str, Any] = {
        "model": model,
        "message": {"role": "assistant", "parts": [{"type": "text", "text": text}]},
        "finish_reason": collected.finish_reason if collected else "stop",
        "usage": dict(collected.usage) if collected else {},
    }
    if data:
        plain["provider_data"] = data
    return plain


def stream_event(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a canonical stream event, as plain data: "start", "delta" (with ``text``) or "end"."""
    if kind == "delta":
        return {"type": "delta", "delta": {"type": "text", "text": fields["text"], "part_index": 0}}
    return {"type": kind, **fields}
