"""numpy arrays survive the codec exactly, and numpy stays out where there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from array_strategies import DTYPES, STRUCTURED, laid_out
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from snakepit.errors import DecodeError, EncodeError, PayloadTooLarge
from snakepit.wire.codec import decode, encode


@settings(max_examples=200)
@given(
    (DTYPES | STRUCTURED).flatmap(
        lambda dtype: st_np.arrays(dtype, st_np.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    st.sampled_from(["C", "F", "reversed", "every other", "transposed"]),
)
def test_arrays_round_trip_exactly_and_arrive_read_only(array: Any, layout: str) -> None:
    array = laid_out(array, layout)
    again = decode(encode(array))
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()
    assert not again.flags.writeable
    assert again.flags.f_contiguous or not array.flags.f_contiguous
    assert again.flags.aligned


def test_array_types_in_particular() -> None:
    aligned = np.dtype(
        [("a", "i1"), ("b", ">f8"), ("c", [("d", "U3"), ("e", "M8[ns]")])], align=True
    )
    for array in (
        np.zeros((2, 2), aligned),
        np.zeros(2, [(("the title", "name"), "<i4"), ("grid", "f4", (2, 3))]),
        np.array(["2024-02-29", "NaT"], "M8[25s]"),
        np.arange(3, dtype=">i4"),
        np.zeros(2, "V5"),
    ):
        again = decode(encode({"a": array}))["a"]
        assert again.dtype == array.dtype
        assert again.tobytes() == array.tobytes()


def test_a_memory_mapped_array_is_an_array(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "m", dtype="i4", mode="w+", shape=(3,))
    assert type(decode(encode(mapped))) is np.ndarray


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.complex64(1 + 2j), 1 + 2j),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
    ],
    ids=repr,
)
def test_a_numpy_scalar_equal_to_a_python_number_is_that_number(scalar: Any, expected: Any) -> None:
    again = decode(encode(scalar))
    assert type(again) is type(expected)
    assert again == expected


@pytest.mark.parametrize(
    "scalar",
    [
        np.datetime64("2024-02-29T01", "h"),
        np.timedelta64(3, "D"),
        np.longdouble(1) / 3,
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])[0],
    ],
    ids=repr,
)
def test_other_numpy_scalars_stay_scalars(scalar: Any) -> None:
    again = decode(encode(scalar))
    assert type(again) is type(scalar)
    assert again.dtype == scalar.dtype
    assert again == scalar


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, [("a", ml_dtypes.float8_e5m2)]], ids=str)
def test_a_dtype_of_another_package_is_refused(dtype: Any) -> None:
    # It would arrive as raw bytes: its name means nothing to numpy alone.
    with pytest.raises(EncodeError, match=r"items\[0\] is an array of dtype .* not numpy's own"):
        encode([np.zeros(2, dtype)], root="items")


def test_a_huge_array_is_refused_before_it_is_copied() -> None:
    huge = np.broadcast_to(np.zeros(1), (1 << 40,))  # 8 TiB that take no memory
    with pytest.raises(PayloadTooLarge):
        encode([huge])


# --- numpy stays out -----------------------------------------------------------------------------


def test_importing_and_using_the_codec_loads_neither_numpy_nor_pydantic() -> None:
    program = """
import sys
from snakepit.wire.codec import decode, encode
from snakepit.errors import EncodeError
assert decode(encode({"a": (1, {2})})) == {"a": (1, {2})}
try:
    encode(object())
except EncodeError:
    pass
print(sorted({"numpy", "pydantic", "zoneinfo"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_an_array_without_numpy_installed_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(np.arange(3))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DecodeError, match="install numpy"):
        decode(data)
