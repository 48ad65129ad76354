"""Arrays as values of variables: what is stored, what readers get, what is refused."""

from __future__ import annotations

import array
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from variable_values import same

from snakepit.errors import ConfigurationError
from snakepit.wire.codec import decode, encode
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables.types import TypeRegistry, arrays

TYPES = TypeRegistry()
TENSOR = TYPES.declare("tensor")


def stored(value: Any, **constraints: Any) -> Any:
    return TYPES.declare("tensor", constraints).read(value)


class Exporter:
    """Shares an array's memory as DLPack does, from the device of choice."""

    def __init__(self, content: Any, device: tuple[int, int] = (1, 0)) -> None:
        self._content = content
        self._device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self._content.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


GRID = np.arange(24, dtype="i4").reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("value", "order"),
    [
        (GRID, "C"),
        (np.asfortranarray(GRID), "F"),
        (GRID.T, "F"),
        (GRID[::-1, :, ::2], "C"),
        (GRID.transpose(1, 0, 2), "C"),
        (np.zeros((0, 3)), "CF"),
        (np.zeros((3, 0)).T, "CF"),
        (np.array(7), "CF"),
        (np.arange(3, dtype=">i4"), "CF"),
        (np.array(["2024-02-29", "NaT"], "M8[ns]"), "CF"),
        (np.array([1, 2], "m8[s]"), "CF"),
        (np.array([1.5, np.nan, -0.0], "f2"), "CF"),
        (np.array(["a", "bc"]), "CF"),
        (np.zeros(2, "V5"), "CF"),
        (np.zeros(2, [(("title", "name"), "<i4"), ("grid", "f4", (2, 3))]), "CF"),
        (np.array([True, False]), "CF"),
        (np.array([1j], "c16"), "CF"),
    ],
    ids=str,
)
def test_dtype_shape_and_order_survive(value: Any, order: str) -> None:
    found = stored(value)
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.dtype.byteorder == value.dtype.byteorder
    assert found.tobytes() == value.tobytes()
    assert (found.flags.c_contiguous, found.flags.f_contiguous) == ("C" in order, "F" in order)
    assert not np.shares_memory(found, value)
    assert same(decode(encode(found)), found)


def test_a_change_of_the_given_array_is_not_seen() -> None:
    given = np.arange(6.0).reshape(2, 3)
    view = given[:, 1]
    view.flags.writeable = False  # which binds nobody who has the base
    found = stored(view)
    given[:] = -1
    assert found.tolist() == [1.0, 4.0]


def test_readers_share_the_memory_and_can_not_change_it() -> None:
    found = stored(np.arange(6.0).reshape(2, 3))
    copy: Any = TENSOR.copy(found)
    assert np.shares_memory(copy, found)
    for mine in (copy, copy.base, found):
        with pytest.raises(ValueError, match="WRITEABLE"):
            mine.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        copy[0, 0] = 9
    again: Any = TENSOR.copy(found)
    copy.dtype = "i8"
    assert (again.dtype, found.dtype) == (np.dtype("f8"), np.dtype("f8"))


def test_arrays_in_lists_are_as_safe(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "m", dtype="i4", mode="w+", shape=(3,))
    declared = TYPES.declare("list")
    kept: Any = declared.read([mapped, {"a": array.array("d", [0.5])}])
    mapped[:] = 7
    given: Any = declared.copy(kept)
    assert type(given[0]) is np.ndarray
    assert given[0].tolist() == [0, 0, 0]
    assert given[1]["a"].tolist() == [0.5]
    assert given[0] is not kept[0]
    assert not given[0].flags.writeable


@pytest.mark.parametrize(
    ("value", "dtype", "content"),
    [
        (array.array("f", [0.5, 1.0]), "float32", [0.5, 1.0]),
        (memoryview(array.array("h", [1, 2]))[::-1], "int16", [2, 1]),
        (memoryview(b"ab"), "uint8", [97, 98]),
        (Exporter(np.arange(4, dtype="u2")[::2]), "uint16", [0, 2]),
        (Exporter(np.array([True])), "bool", [True]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_memory_that_others_export(value: Any, dtype: str, content: list[Any]) -> None:
    found = stored(value, dtype=dtype, shape=[None])
    assert type(found) is np.ndarray
    assert (found.dtype.name, found.tolist()) == (dtype, content)
    assert not found.flags.writeable
    if not isinstance(value, memoryview):  # which is taken for bytes
        assert TYPES.infer(value) == "tensor"


def test_exported_memory_is_copied() -> None:
    given = np.zeros(3)
    found = stored(Exporter(given))
    given[:] = 1
    assert found.tolist() == [0, 0, 0]
    assert TYPES.declare("embedding").read(Exporter(given)) == (1.0, 1.0, 1.0)


RELEASED = memoryview(b"abc")
RELEASED.release()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([None, "a"]), "elements of dtype object, which do not travel"),
        (np.zeros(2, [("a", "i4"), ("b", [("c", object)])]), "which do not travel"),
        (np.zeros(2, ml_dtypes.bfloat16), "elements of dtype bfloat16, which do not travel"),
        (np.zeros(2, [("a", ml_dtypes.bfloat16)]), "which do not travel"),
        (np.array(["a"], np.dtypes.StringDType()), "which do not travel"),
        (np.zeros(2, "V0"), "which do not travel"),
        (np.ma.array([1, 2], mask=[False, True]), "may have more than elements, such as a mask"),
        (np.zeros(2, "i4").view(np.recarray), "may have more than elements"),
        (np.broadcast_to(0.0, (1 << 40,)), "has 8796093022208 bytes, and 1073741824 can travel"),
        (np.broadcast_to(0.0, (3, 3)), "shows the same memory more than once"),
        (np.broadcast_to(np.arange(10)[::5], (2, 2)), "shows the same memory more than once"),
        (np.lib.stride_tricks.sliding_window_view(np.arange(5), 3), "more than once"),
        ([[1, 2], [3, 4]], "takes an array, not a value of type list .it has no dtype"),
        (3, "takes an array, not 3$"),
        (np.float64(3), "takes an array, not a value of type float64$"),
        (b"abc", "takes an array, not a value of type bytes$"),
        (RELEASED, "does not let its memory be read: operation forbidden on released memoryview"),
        (Exporter(np.zeros(3), (2, 0)), "is on a GPU or another device .DLPack's type 2."),
        (Exporter(None), "does not let its memory be read: 'NoneType' object has no"),
        (Exporter(np.array(["2024"], "M8[D]")), "does not let its memory be read: DLPack only"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refused_arrays(value: Any, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says):
        stored(value)


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        ({"shape": [2, None, 4]}, None),
        ({"shape": (None, None, None), "dtype": "i4"}, None),
        ({"dtype": np.dtype("i4")}, None),
        ({"shape": [2, None]}, r"must have the shape \(2, None\), it has \(2, 3, 4\)"),
        ({"shape": [2, 3, 5]}, r"must have the shape \(2, 3, 5\)"),
        ({"shape": []}, r"must have the shape \(\)"),
        ({"dtype": "float32"}, "must have the dtype float32, it has int32"),
        ({"dtype": ">i4"}, "must have the dtype >i4, it has int32"),
    ],
    ids=str,
)
def test_shape_and_dtype(constraints: dict[str, Any], says: str | None) -> None:
    if says is None:
        assert stored(GRID, **constraints).shape == GRID.shape
    else:
        with pytest.raises(ValidationFailed, match=says):
            stored(GRID, **constraints)


def test_numpy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    for value in (array.array("d", [1.0]), Exporter(GRID)):
        with pytest.raises(ConfigurationError, match="install numpy, or store a list"):
            stored(value)
    with pytest.raises(ConfigurationError):
        TYPES.declare("tensor", {"dtype": "float32"})
    assert TYPES.declare("embedding").read([1, 2]) == (1.0, 2.0)


def test_a_numpy_that_is_being_imported_is_none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", type(sys)("numpy"))
    assert not arrays.is_array(GRID.tolist())
    assert TYPES.declare("integer").read(3) == 3


# --- torch ---------------------------------------------------------------------------------------


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    given = torch.arange(6.0).reshape(2, 3)
    assert TYPES.infer(given) == "tensor"
    for value, content in (
        (given, [[0, 1, 2], [3, 4, 5]]),
        (given.T, [[0, 3], [1, 4], [2, 5]]),
        (torch.tensor([True, False]), [True, False]),
        (torch.tensor(3), 3),
    ):
        assert stored(value).tolist() == content
    found = stored(given)
    given[0] = 9
    assert found[0].tolist() == [0, 1, 2]
    for value, says in (
        (torch.zeros(2, requires_grad=True), r"use tensor.detach\(\)"),
        (torch.zeros(2).bfloat16(), "Unsupported dtype"),
        (torch.zeros(2).to_sparse(), "torch.strided"),
        (torch.zeros(2, device="meta"), "does not let its memory be read"),
        (torch.zeros(1).expand(3), "shows the same memory more than once"),
    ):
        with pytest.raises(ValidationFailed, match=says):
            stored(value)
