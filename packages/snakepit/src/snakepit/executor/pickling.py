"""Calls and results of an executor as pickles, with their large buffers beside them.

The one place of this library where bytes become objects of any kind: the contract of
``concurrent.futures`` is pickle. A host unpickles nothing but what its own executor's workers sent,
which run the code that it sent to them.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from multiprocessing.resource_sharer import DupFd
from traceback import format_exception
from typing import Any, Final, NamedTuple, Protocol, cast

from snakepit.wire.segments import SEGMENT_THRESHOLD

#: Travels as data: a pickle, and behind it arrays of the large buffers that it refers to.
Message = Sequence[Any]

_PROTOCOL: Final = 5


class Pickler(Protocol):
    """A module with the functions of ``pickle``, such as ``cloudpickle``."""

    @property
    def __name__(self) -> str: ...
    @property
    def dumps(self) -> Callable[..., bytes]: ...
    @property
    def loads(self) -> Callable[..., Any]: ...


DEFAULT_PICKLER: Final = cast(Pickler, pickle)


def import_pickler(name: str) -> Pickler:
    """The module of that name, in a worker."""
    return cast(Pickler, import_module(name))


def pack(value: object, pickler: Pickler) -> Message:
    """Any object as a message; raises what pickling it raises.

    Large buffers are not copied yet: they must not change before the message is sent.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:  # then nothing has buffers worth the trouble
        return [pickler.dumps(value, protocol=_PROTOCOL)]
    message: list[Any] = [b""]

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SEGMENT_THRESHOLD:
            return True
        message.append(numpy.frombuffer(raw, "u1"))
        return False

    message[0] = pickler.dumps(value, protocol=_PROTOCOL, buffer_callback=keep_inside)
    return message


def unpack(message: Message, pickler: Pickler) -> Any:
    """The object of a message; raises what unpickling it raises.

    Buffers are copied out of the memory that they came in: what is unpickled can be written to.
    """
    data, *buffers = message
    if not buffers:
        return pickler.loads(data)
    return pickler.loads(data, buffers=[buffer.copy() for buffer in buffers])


def pack_error(error: BaseException, pickler: Pickler) -> Message | None:
    """An exception with the text of its traceback; None if it does not survive the way.

    Many classes can be pickled and not be restored, because their constructor wants other arguments
    than they keep. So it is tried here.
    """
    text = "".join(format_exception(error))
    try:
        message = pack((error, text), pickler)
        unpack(message, pickler)
    except Exception:
        return None
    return message


class StartPickle(NamedTuple):
    """What a worker is started with. ``is_reusable``: any number of workers may have the same."""

    data: bytes
    is_reusable: bool


def pack_for_start(value: object, pickler: Pickler, *, trial: bool = False) -> StartPickle:
    """Pickle what a worker is started with as ``multiprocessing`` does it.

    Unlike a call it may hold queues, locks, shared values and connections, whose descriptors the
    worker fetches from this process, once for each pickle. A ``trial`` offers none: it shows
    whether the value can be pickled.
    """
    worker = _StartedWorker(trial)
    before = context.get_spawning_popen()
    context.set_spawning_popen(cast(Any, worker))
    try:
        dumps = ForkingPickler.dumps if pickler is DEFAULT_PICKLER else pickler.dumps
        return StartPickle(bytes(dumps(value, protocol=_PROTOCOL)), not worker.fetches)
    finally:
        context.set_spawning_popen(before)


class _StartedWorker:
    """Stands for the process that a pickle is made for; asked for its copies of descriptors."""

    def __init__(self, trial: bool) -> None:
        self.fetches = False
        self._trial = trial

    def duplicate_for_child(self, fd: int) -> int:
        return fd

    def DupFd(self, fd: int) -> object:  # noqa: N802  # multiprocessing's name
        self.fetches = True
        return fd if self._trial else DupFd(fd)
