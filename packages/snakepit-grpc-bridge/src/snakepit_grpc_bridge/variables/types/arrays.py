"""Arrays as values of variables: numpy's own, and what shares its memory. Pure.

numpy is not imported here before somebody brings an array. What is stored lies in ``bytes``, so
that nobody can make it writable, and nothing that is handed out can change it.
"""

from __future__ import annotations

import array
import sys
from importlib import import_module
from typing import Any

from snakepit.errors import ConfigurationError, EncodeError
from snakepit.wire import arrays as wire
from snakepit.wire.codec import MAX_PAYLOAD_BYTES, encode
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = [
    "as_array",
    "dtype_of",
    "freeze",
    "is_array",
    "python_number",
    "read_dtype_name",
    "read_tensor",
    "view_of",
]

#: Device types of DLPack whose memory the processor can read: CPU, and CUDA's pinned host memory.
_HOST_DEVICES = (1, 3)
_LONGEST_DTYPE = 40
_LONGEST_TEXT = 200


def is_array(value: object) -> bool:
    """Say whether ``value`` is an array, or can be read as one. Runs no code of the value's."""
    kind = type(value)
    return issubclass(kind, array.array) or _is_numpy(kind, "ndarray") or _exports(kind)


def python_number(value: Any) -> Any:
    """Return the Python number that equals a numpy scalar; anything else as it is."""
    return wire.scalar_as_python(value) if _is_numpy(type(value), "generic") else value


def as_array(value: Any) -> Any:
    """Return a numpy array of what ``value`` holds, which may still share its memory.

    Raises:
        Unfit: it is no array, is of a subclass of numpy's, or its memory can't be read here.
        ConfigurationError: numpy is needed and not installed.
    """
    kind = type(value)
    if _is_numpy(kind, "ndarray"):
        if kind not in (_numpy().ndarray, _numpy().memmap):
            raise Unfit(
                "may have more than elements, such as a mask; take numpy.asarray(...) of it"
            )
        return value
    try:
        if issubclass(kind, (array.array, memoryview)):
            return _numpy().asarray(memoryview(value))
        if _exports(kind):
            return _from_dlpack(value)
    except (ConfigurationError, Unfit):
        raise
    except Exception as error:  # another library's code, or a view of memory that is gone
        raise Unfit(f"does not let its memory be read{_says(error)}") from error
    raise Unfit


def read_tensor(value: Any) -> Any:
    """Return a private, read-only copy of an array as numpy's; see :func:`freeze`."""
    if issubclass(type(value), (list, tuple)):
        raise Unfit("has no dtype; store numpy.asarray(...) of it")
    return freeze(as_array(value))


def freeze(value: Any) -> Any:
    """Return a private, read-only copy of a numpy array, in C order or in Fortran order.

    Raises:
        Unfit: its elements are no plain bytes, it is too large to travel, or it is a view that
            shows the same memory more than once.
    """
    numpy = _numpy()
    _check_elements(numpy, value.dtype)
    if value.nbytes > MAX_PAYLOAD_BYTES:
        raise Unfit(f"has {value.nbytes} bytes, and {MAX_PAYLOAD_BYTES} can travel")
    if _repeats_memory(value):
        raise Unfit(
            "shows the same memory more than once, as a broadcast array does; store what it was "
            "made of, or its .copy()"
        )
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return numpy.ndarray(value.shape, value.dtype, buffer=value.tobytes(order), order=order)


def view_of(stored: Any) -> Any:
    """Return a read-only view of a frozen array: even its shape is the caller's own."""
    return stored.view()


def read_dtype_name(value: Any) -> str:
    """Return the name of a dtype, given as text, as numpy's dtype or as a class of its scalars."""
    kind = type(value)
    is_dtype = _is_numpy(kind, "dtype") or (kind is type and _is_numpy(value, "generic"))
    if not is_dtype and (kind is not str or len(value) > _LONGEST_DTYPE):
        raise Unfit
    dtype = _numpy().dtype(value)
    if dtype.names is not None:
        raise Unfit("is a structured dtype")
    _check_elements(_numpy(), dtype)
    name: str = dtype.name if dtype_of(dtype.name) == dtype else dtype.str
    return name


def dtype_of(name: str) -> Any:
    """Return numpy's dtype of that name."""
    return _numpy().dtype(name)


def _is_numpy(kind: type, name: str) -> bool:
    # Absent before it is imported, and in part while it is.
    base = getattr(sys.modules.get("numpy"), name, None)
    return base is not None and issubclass(kind, base)


def _exports(kind: type) -> bool:
    return hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__")


def _from_dlpack(value: Any) -> Any:
    device, _ = value.__dlpack_device__()
    if device not in _HOST_DEVICES:
        raise Unfit(
            f"is on a GPU or another device (DLPack's type {int(device)}); copy it to the host "
            "first, as with .cpu()"
        )
    return _numpy().from_dlpack(value)


def _says(error: Exception) -> str:
    # Its own text only: the str of an error runs code of whoever raised it.
    text = error.args[0] if error.args else None
    return f": {text[:_LONGEST_TEXT]}" if type(text) is str else ""


def _numpy() -> Any:
    try:
        return import_module("numpy")
    except ImportError as missing:
        raise ConfigurationError(
            "arrays are stored as numpy's, but numpy is not installed here; install numpy, or "
            "store a list"
        ) from missing


def _check_elements(numpy: Any, dtype: Any) -> None:
    try:
        encode(numpy.empty(0, dtype))
    except EncodeError as error:
        raise Unfit(
            f"has elements of dtype {dtype}, which do not travel; convert it to one of numpy's "
            "dtypes of numbers, text or dates, or store a list"
        ) from error


def _repeats_memory(value: Any) -> bool:
    axes = [(size, abs(step)) for size, step in zip(value.shape, value.strides, strict=True)]
    if value.size == 0:
        return False
    spanned = value.itemsize + sum((size - 1) * step for size, step in axes)
    return spanned < value.nbytes or any(size > 1 and step == 0 for size, step in axes)
