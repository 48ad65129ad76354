"""Program classes: a class that runs in a worker, declared once with its signature."""

from __future__ import annotations

import functools
import keyword
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, Self

from dspex.client import AsyncClient, Client
from dspex.default import default_client
from dspex.errors import ConfigurationError, HandleClosed
from dspex.face import Face, sync
from dspex.prediction import Prediction
from dspex.sessions import AsyncSession, Session
from snakepit_grpc_bridge.dspy.signature import parse_signature

DEFAULT_SIGNATURE = "input -> output"


@dataclass(frozen=True, kw_only=True)
class ModuleInfo:
    """What a `Module` subclass declares.

    Attributes:
        path: the class that runs in the worker, such as `"dspy.ChainOfThought"`.
        signature: the signature it is created with; None if it takes none.
        description: one line about it.
        methods: methods that the handle offers: the name in the worker -> the name here.
        enhanced_mode: whether the handle has `chain_of_thought`.
        module: the name of the declaring class.
    """

    path: str
    signature: str | None
    description: str
    methods: Mapping[str, str]
    enhanced_mode: bool
    module: str


class _Handle(ABC):
    """What both handles share: the declared methods, by name."""

    @property
    @abstractmethod
    def info(self) -> ModuleInfo:
        """What the class declares."""

    def _extras(self) -> dict[str, Callable[..., Any]]:
        call, thoughtful = (getattr(self, name) for name in ("call", "_chain_of_thought"))
        extras = {here: functools.partial(call, name) for name, here in self.info.methods.items()}
        return extras | ({"chain_of_thought": thoughtful} if self.info.enhanced_mode else {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        extras = self._extras()
        if name not in extras:
            hint = "; declare it with enhanced_mode=True" if name == "chain_of_thought" else ""
            raise AttributeError(
                f"{self.info.module} has no {name!r}{hint} "
                f"(declared: {', '.join(extras) or 'no methods'})"
            )
        return extras[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._extras()})


class AsyncModuleHandle(_Handle):
    """An instance of a program in a session's worker process; `Module.acreate()` makes it.

    Has the methods that the class declares, besides these, and `chain_of_thought(**inputs)` if it
    is declared with `enhanced_mode=True`. Usable with `async with`.
    """

    def __init__(
        self, info: ModuleInfo, session: AsyncSession, instance_id: str, *, owns_session: bool
    ) -> None:
        self._info = info
        self._owns_session = owns_session
        self._closed = False
        self.session = session
        self.instance_id = instance_id

    @property
    def info(self) -> ModuleInfo:
        """What the class declares."""
        return self._info

    async def execute(self, /, **inputs: Any) -> Prediction:
        """Run the instance on a value for each input field of its signature.

        Raises:
            InputMismatch: the inputs are not those of the signature. Nothing was sent.
            HandleClosed: the handle is closed.
            SessionLost: the worker that held the instance died; create it again.
        """
        return _as_prediction(await self.call("__call__", **inputs))

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call a method of the instance, by its name in the worker, with keyword arguments."""
        self._check_open()
        return await self.session.platform.dspy.execute_instance(
            self.instance_id, arguments, method=method, session_id=self.session.id
        )

    async def close(self) -> None:
        """Forget the instance, and close its session if that was made for it. Idempotent."""
        self._closed = True
        platform = self.session.platform
        if self._owns_session:
            await self.session.close()
        elif await platform.sessions.exists(self.session.id):
            await platform.dspy.release(self.instance_id, session_id=self.session.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _chain_of_thought(self, /, **inputs: Any) -> Prediction:
        self._check_open()
        return await self.session.chain_of_thought(str(self._info.signature), inputs)

    def _check_open(self) -> None:
        if self._closed:
            name = self._info.module
            raise HandleClosed(f"this handle of {name} is closed; make another: {name}.create()")


class ModuleHandle(Face, _Handle):
    """The synchronous twin of `AsyncModuleHandle`; `Module.create()` makes it."""

    _behind: AsyncModuleHandle

    execute = sync(AsyncModuleHandle.execute)
    call = sync(AsyncModuleHandle.call)
    close = sync(AsyncModuleHandle.close)
    _chain_of_thought = sync(AsyncModuleHandle._chain_of_thought)

    @property
    def info(self) -> ModuleInfo:
        """What the class declares."""
        return self._behind.info

    @property
    def session_id(self) -> str:
        """The session that holds the instance."""
        return self._behind.session.id

    @property
    def instance_id(self) -> str:
        """The id of the instance; `"stored.<id>"` addresses it in `call`."""
        return self._behind.instance_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Module:
    """Base of program classes. A subclass names a class that workers run, and its signature.

    Class arguments:
        path: the dotted path of the class, inside the setting `import_allow`.
        signature: what it is created with; None for a class of your own that takes none.
        description: one line about it, for `info()`.
        methods: more methods that handles offer: the name in the worker -> the name here.
        enhanced_mode: whether handles have `chain_of_thought(**inputs)`.

    Raises:
        ConfigurationError: at the class statement: the path, a method's name or an option is wrong.
        SignatureInvalid: at the class statement: the signature doesn't parse.

    Example:
        >>> class QA(dspex.Module, path="dspy.ChainOfThought", signature="question -> answer"):
        ...     "Answers questions."
        >>> with QA.create() as qa:
        ...     qa.execute(question="What is the capital of France?").answer
        'Paris'
    """

    _info: ClassVar[ModuleInfo]

    def __init_subclass__(
        cls,
        *,
        path: str,
        signature: str | None = DEFAULT_SIGNATURE,
        description: str | None = None,
        methods: Mapping[str, str] | None = None,
        enhanced_mode: bool = False,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        _check_path(cls.__name__, path)
        if signature is not None:
            parse_signature(signature)
        elif enhanced_mode:
            raise ConfigurationError(f"{cls.__name__}: enhanced_mode=True needs a signature")
        first_line = (cls.__doc__ or "").strip().partition("\n")[0]
        cls._info = ModuleInfo(
            path=path,
            signature=signature,
            description=description or first_line or f"DSPy wrapper for {path}",
            methods=MappingProxyType(_checked_methods(cls.__name__, methods or {})),
            enhanced_mode=enhanced_mode,
            module=cls.__name__,
        )

    def __new__(cls) -> Self:
        raise TypeError(f"{cls.__name__} lives in a worker; use {cls.__name__}.create()")

    @classmethod
    def info(cls) -> ModuleInfo:
        """Return what the class declares."""
        return cls._info

    @classmethod
    def create(cls, where: Client | Session | None = None, /, **arguments: Any) -> ModuleHandle:
        """Create an instance in a worker and return its handle, also usable with `with`.

        Args:
            where: a session to keep it in, or a client, where it gets a session of its own that
                ends with it; by default the client of the module-level functions.
            arguments: more keyword arguments for the class in the worker, plain data.

        Raises:
            NotAllowed: the path is outside the setting `import_allow`.
        """
        face = default_client() if where is None else where
        return ModuleHandle(face._loop.run(cls.acreate(face._behind, **arguments)), face._loop)

    @classmethod
    async def acreate(
        cls, where: AsyncClient | AsyncSession, /, **arguments: Any
    ) -> AsyncModuleHandle:
        """As `create`, for a client or session with an event loop."""
        info = cls._info
        if info.signature is not None:
            arguments = {"signature": info.signature, **arguments}
        owns_session = isinstance(where, AsyncClient)
        session = await where.start_temp_session() if isinstance(where, AsyncClient) else where
        try:
            instance_id = await session.platform.dspy.create_instance(
                info.path, (), arguments, session_id=session.id
            )
        except BaseException:
            if owns_session:
                await session.close()
            raise
        return AsyncModuleHandle(info, session, instance_id, owns_session=owns_session)

    @classmethod
    def call(cls, where: Client | Session | None = None, /, **inputs: Any) -> Prediction:
        """Create an instance, execute it once and forget it."""
        with cls.create(where) as handle:
            return handle.execute(**inputs)

    @classmethod
    async def acall(cls, where: AsyncClient | AsyncSession, /, **inputs: Any) -> Prediction:
        """As `call`, for a client or session with an event loop."""
        async with await cls.acreate(where) as handle:
            return await handle.execute(**inputs)


def _as_prediction(result: Any) -> Prediction:
    """A program returns a prediction, which arrives as a mapping; or something else of its own."""
    return Prediction(result if isinstance(result, Mapping) else {"result": result})


def _check_path(name: str, path: object) -> None:
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() and part[0] != "_" for part in parts):
        raise ConfigurationError(
            f"{name}: path must be the dotted path of a class, as in path='dspy.Predict'; it was "
            f"{path!r}"
        )


def _checked_methods(name: str, methods: Mapping[str, str]) -> dict[str, str]:
    """Return the mapping if its names can be methods of a handle."""
    taken = {*dir(ModuleHandle), *dir(AsyncModuleHandle), "chain_of_thought"}
    for there, here in methods.items():
        for given in (there, here):
            if not given.isidentifier() or keyword.iskeyword(given) or given.startswith("_"):
                raise ConfigurationError(
                    f"{name}: methods maps method names to method names; {given!r} is none"
                )
        if here in taken:
            raise ConfigurationError(
                f"{name}: the handle can't have another {here!r}; choose a different name for "
                f"{there!r} in methods"
            )
        taken.add(here)
    return dict(methods)
