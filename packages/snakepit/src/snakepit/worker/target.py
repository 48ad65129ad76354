"""Finding the class that a worker serves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from snakepit.errors import ConfigurationError


class _Imports(threading.local):
    """A fact about a thread: a worker may be one of many threads of the host."""

    running = False


_imports = _Imports()


def import_is_running() -> bool:
    """Whether this thread is importing what a worker needs, and runs no command yet."""
    return _imports.running


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import in a template or a worker what it needs; what runs meanwhile must not start pools."""
    before, _imports.running = _imports.running, True
    try:
        yield
    finally:
        _imports.running = before


def import_for_worker(module: str) -> ModuleType:
    """Import a module in a template or a worker."""
    with importing():
        return import_module(module)


def split_target(target: str) -> tuple[str, str]:
    """Split ``"package.module:Class"``; runs on the host too, where it imports nothing.

    Raises:
        ConfigurationError: the text has another form.
    """
    if not isinstance(target, str):
        raise ConfigurationError(
            f"{target!r} is no text; name the class that the workers import, as in "
            "'package.module:Class'"
        )
    module, separator, name = target.partition(":")
    valid = separator and all(
        part.isidentifier() for part in [*module.split("."), *name.split(".")]
    )
    if not valid:
        raise ConfigurationError(
            f"{target!r} names no class: write it as 'package.module:Class'",
            details={"target": target},
        )
    return module, name


def advice_on(cause: BaseException, *, host_path: bool) -> str:
    """What to do about a module that a worker did not find, to be put behind the error; empty for
    another ``cause``. ``host_path``: whether workers search the host's ``sys.path``.
    """
    if not isinstance(cause, ModuleNotFoundError):
        return ""
    if host_path:
        return "; workers look for modules in this process's sys.path"
    return (
        "; workers of another interpreter look in its own sys.path: install the module there, or "
        "name its folder with env={'PYTHONPATH': ...}"
    )


def load_target(target: str) -> type:
    """Import and return the class that ``target`` names.

    Raises:
        ConfigurationError: it has no such attribute, or it is no class.
        ImportError: the module can't be imported.
    """
    module_name, name = split_target(target)
    found: object = import_for_worker(module_name)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ConfigurationError(
            f"module {module_name!r} has no class {name!r}", details={"target": target}
        )
    return found
