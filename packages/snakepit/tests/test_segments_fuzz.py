"""Any array through a segment, and references to segments that are damaged in any way."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import msgpack
import numpy as np
from array_strategies import DTYPES, STRUCTURED, laid_out
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from segment_ends import LARGE, Ends

from snakepit.errors import DecodeError, ProtocolError
from snakepit.wire import arrays
from snakepit.wire.codec import encode_fields, resolve
from snakepit.wire.segments import SEGMENT_THRESHOLD, Leases, Placement
from snakepit.wire.values import Ext


@settings(max_examples=80, deadline=None)
@given(
    (DTYPES | STRUCTURED).flatmap(
        lambda dtype: st_np.arrays(dtype, st_np.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    st.sampled_from(["C", "F", "reversed", "every other", "transposed"]),
)
def test_arrays_of_any_type_and_layout_survive_a_dirty_segment(array: Any, layout: str) -> None:
    sent = laid_out(array, layout)
    with contextlib.closing(Ends()) as both:
        first = both.outgoing.take(1)
        assert first is not None
        first.memory[:] = b"\xaa" * first.size  # what another session left
        both.outgoing.give_back([first])
        payload = arrays.array_to_segment(sent, Placement(both.outgoing))
        assert payload is not None
        body = msgpack.packb([msgpack.ExtType(Ext.SHARED_ARRAY.value, payload)])
        (again,) = resolve(body, Leases(both.incoming)).content()
        assert (again.dtype, again.shape) == (sent.dtype, sent.shape)
        assert again.tobytes() == sent.tobytes()
        assert again.flags.aligned
        assert not again.flags.writeable
        del again


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_references_are_typed_errors_and_keep_nothing(data: st.DataObject) -> None:
    with contextlib.closing(Ends()) as both:
        value = [np.zeros(LARGE), b"x" * SEGMENT_THRESHOLD, {"n": np.zeros((2, LARGE), order="F")}]
        body = encode_fields(value, "abc", segments=both.outgoing)
        for _ in range(data.draw(st.integers(1, 3))):
            where = data.draw(st.integers(0, len(body)))
            out = data.draw(st.integers(0, 3))
            body = body[:where] + data.draw(st.binary(max_size=3)) + body[where + out :]
        try:
            resolved_body = resolve(body, Leases(both.incoming))
        except ProtocolError:
            return
        with contextlib.suppress(DecodeError):
            resolved_body.content()
        used = len(both.incoming._viewed)
        del resolved_body
        gc.collect()
        reusable, spent = both.incoming.take_released()
        assert (len(reusable), spent) == (used, [])
