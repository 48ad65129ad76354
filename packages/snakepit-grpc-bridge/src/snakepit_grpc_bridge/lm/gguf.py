"""Looking into a GGUF file's header: a wrong file is refused before a process is started."""

from __future__ import annotations

import struct
from pathlib import Path

from snakepit_grpc_bridge.errors import ModelNotFound
from snakepit_grpc_bridge.lm.errors import ModelUnreadable

_MAGIC = b"GGUF"
_HEADER = struct.Struct("<4sIQQ")
#: Version 1 had 32-bit counts and was in use for weeks; llama.cpp no longer reads it.
_VERSIONS = range(2, 4)


def check_gguf(path: Path) -> int:
    """Check that ``path`` is a readable GGUF file; return its size in bytes.

    Only the header is read: a file that is cut off later is noticed when the engine loads it.

    Raises:
        ModelNotFound: there is no such file.
        ModelUnreadable: it is no GGUF file, or can't be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except FileNotFoundError as error:
        raise ModelNotFound(
            f"there is no model file {str(path)!r}; check the path in model='gguf:PATH'",
            details={"path": str(path)},
        ) from error
    except OSError as error:
        raise ModelUnreadable(
            f"the model file {str(path)!r} can't be read: {error.strerror or error}",
            details={"path": str(path)},
        ) from error
    if len(head) < _HEADER.size or head[:4] != _MAGIC:
        raise ModelUnreadable(
            f"{str(path)!r} is no GGUF file (it doesn't start with 'GGUF'); download it again, or "
            "convert the model with llama.cpp's tools",
            details={"path": str(path), "size": size},
        )
    _, version, tensors, _ = _HEADER.unpack(head)
    if version not in _VERSIONS or tensors == 0:
        raise ModelUnreadable(
            f"{str(path)!r} is a GGUF file of version {version} with {tensors} tensors, which "
            "can't be loaded; get a current one",
            details={"path": str(path), "version": version, "tensors": tensors},
        )
    return size
