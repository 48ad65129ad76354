"""What `model=` may be, and what is said about what it may not be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import ModelNotFound
from snakepit_grpc_bridge.lm.catalog import ModelKind, resolve
from snakepit_grpc_bridge.lm.errors import ModelUnreadable
from snakepit_grpc_bridge.lm.scripted import ScriptedModel

HEADER = struct.Struct("<4sIQQ")


def gguf(path: Path, magic: bytes = b"GGUF", version: int = 3, tensors: int = 1) -> Path:
    path.write_bytes(HEADER.pack(magic, version, tensors, 0))
    return path


def test_provider() -> None:
    spec = resolve("openai/gpt-5-mini", api_base="http://localhost:8000/v1")
    assert (spec.kind, spec.name) == (ModelKind.PROVIDER, "openai/gpt-5-mini")
    assert spec.api_base == "http://localhost:8000/v1"
    assert spec.for_workers() == {"kind": "provider", "name": "openai/gpt-5-mini", "small": False}


def test_gguf(tmp_path: Path) -> None:
    path = gguf(tmp_path / "tiny model.gguf")
    spec = resolve(f"gguf:{path}")
    assert (spec.kind, spec.path, spec.small) == (ModelKind.NATIVE, path, True)
    assert str(tmp_path) not in str(spec.for_workers())


def test_none() -> None:
    assert resolve("none").for_workers()["kind"] == "none"
    with pytest.raises(ConfigurationError, match="has no server"):
        resolve("none", api_base="http://localhost:8000/v1")


def test_script() -> None:
    spec = resolve(ScriptedModel(responses=[{"answer": "yes"}], matches={"rain": "wet"}))
    assert spec.for_workers()["script"] == {
        "responses": [{"answer": "yes"}],
        "matches": {"rain": "wet"},
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("gpt-5", "PROVIDER/NAME"),
        ("opnai", "did you mean 'openai'"),
        ("openai/", "did you mean 'openai'"),
        ("/models/x.gguf", "for a file write 'gguf:/models/x.gguf'"),
        ("gguf:", "names no file"),
        ("gguf:/nowhere/x.gguf", "no model file '/nowhere/x.gguf'"),
        ("", "PROVIDER/NAME"),
    ],
)
def test_unknown_names_say_what_to_write(name: str, hint: str) -> None:
    with pytest.raises(ModelNotFound, match="model") as caught:
        resolve(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("magic", "version", "tensors"), [(b"GGML", 3, 1), (b"GGUF", 1, 1), (b"GGUF", 3, 0)]
)
def test_files_that_are_no_models(tmp_path: Path, magic: bytes, version: int, tensors: int) -> None:
    path = gguf(tmp_path / "x.gguf", magic, version, tensors)
    with pytest.raises(ModelUnreadable, match=r"x\.gguf"):
        resolve(f"gguf:{path}")


def test_an_empty_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    for name in ("empty.gguf", "."):
        with pytest.raises(ModelUnreadable):
            resolve(f"gguf:{tmp_path / name}")


def test_missing_embedded_model_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPEX_MODEL_DIR", str(tmp_path))
    with pytest.raises(ModelNotFound, match="dspex model install"):
        resolve("embedded")


def test_api_base_is_for_providers(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no server"):
        resolve(f"gguf:{gguf(tmp_path / 'x.gguf')}", api_base="http://localhost/v1")
    with pytest.raises(ConfigurationError, match="an address"):
        resolve("openai/gpt-5-mini", api_base="localhost")


@pytest.mark.parametrize(
    "script", [{}, {"responses": "text"}, {"responses": [1]}, {"matches": ["x"]}]
)
def test_scripts_that_are_none(script: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="ScriptedModel"):
        ScriptedModel(**script)  # type: ignore[arg-type]  # wrong on purpose
