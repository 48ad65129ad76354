"""From what a user writes as ``model=`` to a model that can be started. Host side, and light."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ModelNotFound
from snakepit_grpc_bridge.lm.gguf import check_gguf
from snakepit_grpc_bridge.lm.install import EMBEDDED_LABEL, require_embedded
from snakepit_grpc_bridge.lm.scripted import ScriptedModel

__all__ = ["PROVIDERS", "ModelKind", "ModelSpec", "resolve"]

#: Files below this many bytes get the adapter for small models: they don't follow the instructions
#: that DSPy's own adapters give (about 1.5 billion weights in 4 bits).
SMALL_MODEL_BYTES = 1_000_000_000

#: Prefixes of provider models, only to say something helpful about a name that has none.
PROVIDERS = (
    "anthropic", "azure", "bedrock", "cohere", "databricks", "deepseek", "fireworks_ai", "gemini",
    "groq", "huggingface", "mistral", "ollama", "ollama_chat", "openai", "openrouter", "perplexity",
    "together_ai", "vertex_ai", "vllm", "xai",
)  # fmt: skip
_PROVIDER_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*/\S+\Z")


class ModelKind(StrEnum):
    """Where a model runs."""

    NATIVE = "native"
    """In a worker of the LM pool, by llama.cpp."""
    PROVIDER = "provider"
    """On somebody's server; a worker of the LM pool talks to it."""
    SCRIPTED = "scripted"
    """Nowhere: a script answers in the program's worker."""
    NONE = "none"
    """There is no model: what asks for one fails, and all else works."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that was found.

    Attributes:
        kind: where it runs.
        name: what programs see as ``lm.model``; for a provider its own name.
        label: for people.
        path: the file of a native model.
        small: whether programs use the adapter for small models.
        demonstration: whether it is the embedded model, which is there to try things out.
        api_base: the address of a provider's server, or None for the provider's own.
        script: the script of a scripted model.
    """

    kind: ModelKind
    name: str
    label: str
    path: Path | None = None
    small: bool = False
    demonstration: bool = False
    api_base: str | None = None
    script: ScriptedModel | None = None

    def for_workers(self) -> dict[str, Any]:
        """Return what the workers that run programs need to know, as plain data without keys."""
        plain: dict[str, Any] = {"kind": self.kind.value, "name": self.name, "small": self.small}
        if self.script is not None:
            plain["script"] = self.script.to_plain()
        return plain


def resolve(model: str | ScriptedModel, *, api_base: str | None = None) -> ModelSpec:
    """Find the model that ``model`` means. Reads at most a file's header; starts nothing.

    Args:
        model: "embedded", "gguf:PATH", a provider's model such as "openai/gpt-5-mini", "none", or
            a :class:`ScriptedModel`.
        api_base: the address of a server that speaks the provider's protocol.

    Raises:
        ModelNotFound: no model is meant by that name, or its file is missing; says what to do.
        ModelUnreadable: the file is no GGUF file.
        ConfigurationError: ``model`` is neither text nor a script, or ``api_base`` is no address or
            is given for a model that runs here.

    Example:
        >>> resolve("openai/gpt-5-mini").kind.value
        'provider'
    """
    if isinstance(model, ScriptedModel):
        spec = ModelSpec(
            kind=ModelKind.SCRIPTED, name="scripted", label="a scripted model", script=model
        )
    elif not isinstance(model, str):
        raise ConfigurationError(f"model must be text or a ScriptedModel, not {model!r}")
    elif model == "embedded":
        spec = _embedded()
    elif model == "none":
        spec = ModelSpec(kind=ModelKind.NONE, name="none", label="no model")
    elif model.startswith("gguf:"):
        spec = _gguf(model.removeprefix("gguf:"))
    else:
        return _provider(model, api_base)
    if api_base is not None:
        raise ConfigurationError(
            f"api_base is given, but the model ({spec.label}) has no server; leave it out, or name "
            "a provider's model such as 'openai/NAME'"
        )
    return spec


def _embedded() -> ModelSpec:
    return ModelSpec(
        kind=ModelKind.NATIVE,
        name="embedded",
        label=EMBEDDED_LABEL,
        path=require_embedded(),
        small=True,
        demonstration=True,
    )


def _gguf(text: str) -> ModelSpec:
    if not text.strip():
        raise ModelNotFound("model='gguf:' names no file; write it as 'gguf:/path/to/model.gguf'")
    path = Path(text).expanduser().absolute()
    size = check_gguf(path)
    return ModelSpec(
        kind=ModelKind.NATIVE,
        name=f"gguf-{path.stem}",
        label=f"{path.name} ({size / 1e6:.0f} MB)",
        path=path,
        small=size < SMALL_MODEL_BYTES,
    )


def _provider(model: str, api_base: str | None) -> ModelSpec:
    if not _PROVIDER_MODEL.match(model):
        raise ModelNotFound(_unknown(model), details={"model": model})
    if api_base is not None and not re.match(r"https?://[^/\s]", api_base):
        raise ConfigurationError(
            f"api_base must be an address such as 'http://localhost:8000/v1', it was {api_base!r}"
        )
    return ModelSpec(
        kind=ModelKind.PROVIDER,
        name=model,
        label=model if api_base is None else f"{model} at {api_base}",
        api_base=api_base,
    )


def _unknown(model: str) -> str:
    how = (
        "write 'embedded', 'gguf:PATH', 'PROVIDER/NAME' such as 'openai/gpt-5-mini', or 'none' "
        f"(providers: {', '.join(PROVIDERS)}, ...)"
    )
    if model.casefold().endswith(".gguf"):
        return f"{model!r} is no model's name; for a file write 'gguf:{model}'"
    near = difflib.get_close_matches(
        model.partition("/")[0].casefold(), ["embedded", *PROVIDERS], n=2
    )
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"there is no model {model!r}{hint}; {how}"
