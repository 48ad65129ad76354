"""Arrays of any dtype and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

DTYPES = st.one_of(
    st_np.boolean_dtypes(),
    st_np.integer_dtypes(),
    st_np.unsigned_integer_dtypes(),
    st_np.floating_dtypes(),
    st_np.complex_number_dtypes(),
    st_np.datetime64_dtypes(),
    st_np.timedelta64_dtypes(),
    st_np.byte_string_dtypes(min_len=1),
    st_np.unicode_string_dtypes(min_len=1),
)
STRUCTURED = st_np.array_dtypes(DTYPES, allow_subarrays=True)


def laid_out(array: Any, layout: str) -> Any:
    """The array in another order, or a view of it with other strides."""
    if not array.ndim:
        return array
    match layout:
        case "F":
            return np.asfortranarray(array)
        case "reversed":
            return array[::-1]
        case "every other":
            return array[::2]
        case "transposed":
            return array.T
        case _:
            return array
