"""The host that the suite plays towards one program."""

from __future__ import annotations

import itertools
import reprlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from snakepit.errors import SnakepitError
from snakepit.testing.conformance.program import Channel, Program
from snakepit.testing.conformance.rules import Broken, broken
from snakepit.wire.credit import Credit
from snakepit.wire.frames import FLAG_NESTED, FLAG_STREAM, Frame, FrameType, encode_frame
from snakepit.wire.messages import (
    call_frame,
    credit_frame,
    message_frame,
    read_body,
    read_call,
    read_items,
)

# Seconds that a frame which must not come is waited for, once a ping is answered; and that answer.
_SETTLE = 0.01
_PONG_PATIENCE = 0.25
_MANY = Credit(10_000, 1 << 30)


class Hello(NamedTuple):
    """What a program said of itself."""

    versions: list[Any]
    pid: int
    info: Mapping[str, Any]


class HostCallSeen(NamedTuple):
    """A call that the program made to the host."""

    call_id: int
    command: str
    args: Mapping[str, Any]
    timeout: float | None
    session: str | None
    parent: int | None
    credit: Credit | None
    trace: Mapping[str, Any] | None


class Host:
    """Talks to one program by frames, and reads what it answers.

    Methods that wait for something raise :class:`Broken` when something else comes, or nothing.
    """

    def __init__(self, program: Program, target: str) -> None:
        self.program = program
        self.data = program.data
        self.control = program.control
        self.hello = Hello([], 0, {})
        self.commands: Mapping[str, Any] = {}
        #: Whether it may be given no further call: it has broken off code, or is to end.
        self.spent = False
        self._target = target
        self._ids = itertools.count(1, 2)
        self._tokens = itertools.count(1)
        # Of pings whose answers nobody waits for any more.
        self._late: set[int] = set()

    # --- the beginning -----------------------------------------------------------------------

    def start(self, *, concurrency: int = 1, features: Iterable[str] | None = None) -> None:
        """The whole handshake; by default with all features that the program offers."""
        self.greet()
        offered = self.features if features is None else features
        self.welcome(concurrency=concurrency, features=list(offered))
        self.ready()

    def greet(self) -> None:
        """Read ``HELLO``."""
        frame = self.expect(FrameType.HELLO, 0)
        versions, pid, info = self.body(frame, 3)
        if not isinstance(versions, list) or type(pid) is not int or not isinstance(info, dict):
            broken(f"HELLO is [versions, pid, info], not {[versions, pid, info]!r}")
        self.hello = Hello(versions, pid, info)

    @property
    def features(self) -> list[str]:
        """What the program says that it can do."""
        features = self.hello.info.get("features", [])
        if not isinstance(features, list):
            broken(f"features is an array, not {features!r}")
        return features

    def welcome(
        self,
        *more: Any,
        version: int = 1,
        config: Mapping[str, Any] | None = None,
        concurrency: int = 1,
        features: list[str] | None = None,
        **keys: Any,
    ) -> None:
        """Send ``WELCOME``; ``more`` elements and ``keys`` are those of a later version."""
        settings = {
            "worker_id": "conformance-1",
            "target": self._target,
            "config": dict(config or {}),
            "concurrency": concurrency,
            "spin": 0.0,
            "sys_path": None,
            "limits": {},
            "features": features or [],
            **keys,
        }
        self.data.send(message_frame(FrameType.WELCOME, 0, version, settings, *more))

    def ready(self) -> None:
        """Read ``READY``."""
        frame = self.expect(FrameType.READY, 0)
        (commands,) = self.body(frame, 1)
        if not isinstance(commands, dict):
            broken(f"READY has a map of commands, not {commands!r}")
        self.commands = commands

    # --- sending -----------------------------------------------------------------------------

    def next_id(self) -> int:
        """The id of the next call."""
        return next(self._ids)

    def call(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        call_id: int | None = None,
        timeout: float | None = None,
        session: str | None = None,
        parent: int | None = None,
        credit: Credit | None = None,
    ) -> int:
        """Send a call; return its id."""
        call_id = self.next_id() if call_id is None else call_id
        fields = (command, dict(args or {}), timeout, session, parent, credit)
        self.data.send(call_frame(call_id, fields))
        return call_id

    def stream(
        self, command: str, args: Mapping[str, Any] | None = None, credit: Credit = _MANY
    ) -> int:
        """Send a call that streams; return its id."""
        return self.call(command, args, credit=credit)

    def raw_call(self, body: bytes, *, flags: int = 0) -> int:
        """Send a call with any body; return its id."""
        call_id = self.next_id()
        self.data.send(encode_frame(FrameType.CALL, call_id, body, flags))
        return call_id

    def grant(self, call_id: int, credit: Credit) -> None:
        """Let a stream go on."""
        self.data.send(credit_frame(call_id, credit))

    def cancel(self, call_id: int) -> None:
        """Ask for the end of a call."""
        self.control.send(message_frame(FrameType.CANCEL, call_id, "no longer wanted"))

    def reply(self, kind: FrameType, call_id: int, *elements: Any) -> None:
        """Answer a call of the program."""
        self.data.send(message_frame(kind, call_id, *elements))

    # --- receiving ---------------------------------------------------------------------------

    def next(self, awaited: str, channel: Channel | None = None) -> Frame:
        """The next frame of a channel."""
        channel = channel or self.data
        frame = self._next_control() if channel is self.control else channel.next()
        if frame is None:
            how = "the channel ended" if channel.ended else "nothing came"
            broken(f"waited for {awaited}: {how}")
        return frame

    def expect(self, kind: FrameType, call_id: int, channel: Channel | None = None) -> Frame:
        """The next frame, which has to be this one."""
        wanted = f"{kind.name} for call {call_id}" if call_id else kind.name
        frame = self.next(wanted, channel)
        if frame.type != kind or frame.call_id != call_id:
            broken(f"waited for {wanted}: {shown(frame)} came")
        flags = FLAG_STREAM | FLAG_NESTED if kind == FrameType.CALL else 0
        if frame.flags & ~flags:
            broken(f"{shown(frame)} has the flags {frame.flags:#x}")
        return frame

    def body(self, frame: Frame, count: int) -> list[Any]:
        """The first elements of a frame's body."""
        try:
            return read_body(frame, count)
        except SnakepitError as error:
            raise Broken(f"{shown(frame)} can't be read: {error}") from error

    def result(self, call_id: int) -> Any:
        """The value of the ``RESULT`` that comes next."""
        (value,) = self.body(self.expect(FrameType.RESULT, call_id), 1)
        return value

    def error(self, call_id: int) -> dict[str, Any]:
        """The map of the ``ERROR`` that comes next."""
        frame = self.expect(FrameType.ERROR, call_id)
        (error,) = self.body(frame, 1)
        if not isinstance(error, dict):
            broken(f"an error is a map, not {error!r}")
        return error

    def items(self, call_id: int) -> list[Any]:
        """The items of the ``ITEM`` that comes next."""
        try:
            items = read_items(self.expect(FrameType.ITEM, call_id))
        except SnakepitError as error:
            raise Broken(f"an ITEM can't be read: {error}") from error
        if not items:
            broken("an ITEM has no items")
        return items

    def take_items(self, call_id: int, count: int) -> list[Any]:
        """So many items, from as many frames as they come in."""
        items: list[Any] = []
        while len(items) < count:
            items += self.items(call_id)
        if len(items) > count:
            broken(f"{len(items)} items came, of {count} that could")
        return items

    def after_items(self) -> Frame:
        """The first frame that is no ``ITEM``."""
        end = time.monotonic() + self.program.patience
        while (frame := self.next("the end of the stream")).type == FrameType.ITEM:
            if time.monotonic() > end:
                broken("the stream goes on and on")
        return frame

    def end(self, call_id: int) -> None:
        """Wait for the end of a stream."""
        self.body(self.expect(FrameType.END, call_id), 0)

    def cancelled(self, call_id: int) -> bool:
        """Wait for ``CANCELLED``; whether code was broken off by force."""
        (interrupted,) = self.body(self.expect(FrameType.CANCELLED, call_id), 1)
        if type(interrupted) is not bool:
            broken(f"CANCELLED says true or false, not {interrupted!r}")
        self.spent = self.spent or interrupted
        return interrupted

    def host_call(self) -> HostCallSeen:
        """The call that the program makes to the host."""
        frame = self.next("a CALL of the worker")
        if frame.type != FrameType.CALL:
            broken(f"waited for a CALL of the worker: {shown(frame)} came")
        if frame.call_id % 2 or not frame.call_id:
            broken(f"the worker's call ids are even, not {frame.call_id}")
        try:
            return HostCallSeen(frame.call_id, *read_call(frame))
        except SnakepitError as error:
            raise Broken(f"a CALL of the worker can't be read: {error}") from error

    # --- asking ------------------------------------------------------------------------------

    def echo(self, value: Any = "alive") -> None:
        """It takes calls, and answers them right."""
        found = self.result(self.call("echo", {"value": value}))
        if found != value:
            broken(f"echo of {reprlib.repr(value)} returned {reprlib.repr(found)}")

    def ping(self, token: Any) -> Any:
        """Ping it; the token that comes back."""
        self.control.send(message_frame(FrameType.PING, 0, token))
        (found,) = self.body(self.expect(FrameType.PONG, 0, self.control), 1)
        return found

    def quiet(self, why: str) -> None:
        """Nothing comes on the data channel, as far as that can be seen in a moment."""
        # By its answer it has had the time to do what it must not. That it answers is another rule.
        token = next(self._tokens)
        self._late.add(token)
        self.control.send(message_frame(FrameType.PING, 0, token))
        self._next_control(_PONG_PATIENCE, until=token)
        frame = self.data.next(_SETTLE)
        if frame is not None:
            broken(f"{why}, but {shown(frame)} came")

    def _next_control(self, seconds: float | None = None, until: int | None = None) -> Frame | None:
        """The next frame on control that is no late answer; None, too, when ``until`` has come."""
        while (frame := self.control.next(seconds)) is not None:
            token = self.body(frame, 1)[0] if frame.type == FrameType.PONG else None
            if type(token) is not int or token not in self._late:
                return frame
            self._late.remove(token)
            if token == until:
                return None
        return None

    def ends(self, what: str) -> None:
        """It closes its channel without a further frame, and exits."""
        self.spent = True
        frame = self.data.next()
        if frame is not None:
            broken(f"{what} ends the connection, but {shown(frame)} came")
        self.exits(what)

    def exits(self, what: str) -> int:
        """It ends; its exit code."""
        self.spent = True
        code = self.program.exit_code()
        if code is None:
            broken(f"it lives on after {what}")
        return code


def shown(frame: Frame) -> str:
    """A frame, for messages."""
    name = FrameType(frame.type).name
    return f"{name} for call {frame.call_id}" if frame.call_id else name
