"""The errors of an executor: snakepit's own, which programs for the standard one catch, too."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import cast

from snakepit.errors import SnakepitError

_MADE: dict[tuple[type[SnakepitError], type[Exception]], type[SnakepitError]] = {}


class RemoteTraceback(Exception):
    """The traceback of an exception in the process that raised it, as text; its ``__cause__``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tb = text

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


def also(kind: type[Exception], error: SnakepitError) -> SnakepitError:
    """The same error as an instance of ``kind`` too, which the standard executor raises there."""
    cls = type(error)
    made = _MADE.get((cls, kind))
    if made is None:
        name = f"{cls.__name__}{kind.__name__}"
        namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__}
        made = cast("type[SnakepitError]", type(name, (cls, kind), namespace, registered=False))
        _MADE[cls, kind] = made
    same = made.__new__(made)
    SnakepitError.__init__(same, error.message)
    same.__dict__.update(error.__dict__)
    same.__cause__ = error.__cause__
    return same


def broken(error: SnakepitError) -> SnakepitError:
    """The same error, for ``except BrokenProcessPool`` and ``except BrokenExecutor``."""
    return also(BrokenProcessPool, error)


def with_traceback(error: BaseException, text: str) -> BaseException:
    """Attach the traceback of another process to an exception that came from there."""
    last = error
    while last.__cause__ is not None:  # of snakepit's own, which keep theirs
        last = last.__cause__
    last.__cause__ = RemoteTraceback(text)
    return error
