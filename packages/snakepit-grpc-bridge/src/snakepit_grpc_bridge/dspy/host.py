"""The service that runs DSPy programs in worker processes. Host side; never imports dspy."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from snakepit.errors import SnakepitError
from snakepit.options import Affinity
from snakepit_grpc_bridge.arguments import call_arguments, named_arguments
from snakepit_grpc_bridge.dspy.instance_records import InstanceRecords
from snakepit_grpc_bridge.dspy.options import OPTION_PREFIX, OPTION_VARIABLES, lm_options
from snakepit_grpc_bridge.dspy.paths import (
    STORED,
    check_method,
    check_path,
    check_target,
)
from snakepit_grpc_bridge.dspy.results import PredictionResult
from snakepit_grpc_bridge.dspy.signature import SignatureSpec, parse_signature
from snakepit_grpc_bridge.errors import InstanceNotFound, ValidationFailed
from snakepit_grpc_bridge.lm.catalog import ModelKind
from snakepit_grpc_bridge.program_pools import ProgramPools
from snakepit_grpc_bridge.session_calls import SessionCall, SessionCalls, Timeout
from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.sessions.turns import answer_by
from snakepit_grpc_bridge.settings import Settings

_log = logging.getLogger(__name__)

Signature = str | Mapping[str, Any] | SignatureSpec


class DspyService:
    """Runs DSPy programs. One for each platform; use it on the platform's loop.

    A call without a session runs in a temporary one. ``config`` holds options of the language model
    for this call, such as ``{"temperature": 0.2}``; without it the variables ``temperature``,
    ``max_tokens``, ``top_p`` and ``ml_<option>`` of the session count, then the global ones. A
    wrong option is ValidationFailed, before anything is sent.
    ``timeout`` is the whole budget in seconds or as a ``timedelta``, waiting included; the default
    is the platform's. What the pool raises can come from every method: CallTimeout, WorkerLost,
    PoolSaturated, ...; and SessionNotFound for a session that is not open.
    """

    def __init__(
        self,
        *,
        calls: SessionCalls,
        pools: ProgramPools,
        sessions: SessionService,
        settings: Settings,
        model: Mapping[str, Any],
    ) -> None:
        self._calls = calls
        self._pools = pools
        self._sessions = sessions
        self._settings = settings
        self._model = dict(model)
        self._records = InstanceRecords()
        #: Sessions that have instances in a worker, or may come to have one by a call in flight.
        self._kept: set[str] = set()
        self._forgetting: set[asyncio.Task[None]] = set()
        sessions.on_close(self._session_closed)

    # --- predictions ---------------------------------------------------------------------------

    async def predict(
        self,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        instructions: str | None = None,
        session_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> PredictionResult:
        """Run ``dspy.Predict`` and return its output fields.

        Raises:
            SignatureInvalid: the signature does not parse. Nothing was sent.
            InputMismatch: ``inputs`` are not its input fields. Nothing was sent.
            OutputFieldMissing: the model's answer lacks an output field.

        Example::

            result = await platform.dspy.predict("question -> answer", {"question": "2 + 2?"})
            result["answer"]
        """
        return await self._predict(
            "dspy.predict", signature, instructions, inputs, session_id, config, timeout
        )

    async def chain_of_thought(
        self,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        instructions: str | None = None,
        session_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> PredictionResult:
        """Run ``dspy.ChainOfThought``; as ``predict``, with the field ``reasoning`` besides."""
        return await self._predict(
            "dspy.chain_of_thought", signature, instructions, inputs, session_id, config, timeout
        )

    # --- any class, function or instance ---------------------------------------------------------

    async def call(
        self,
        class_path: str,
        method: str = "__call__",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Any:
        """Call what is at a dotted path in a worker and return the result as plain data.

        ``class_path`` is a class (with ``__init__``, a class method or a static method), a module
        (with the name of a function), a function, or ``"stored.<id>"``, an instance of the session;
        such addresses work anywhere in the arguments too. ``__init__`` stores an instance. A
        prediction becomes the mapping of its fields, and what is no plain data is stored in the
        session and comes back as ``{"stored": address, "class_path": ...}``.

        Raises:
            NotAllowed: the path is outside the setting ``import_allow``.
            ValidationFailed: there is no such thing, or it needs a session to be kept in.
            InstanceNotFound: the session has no instance of that id.
            SessionLost: the instance's worker has ended, and the instance with it.
            RemoteError: it raised; the error is also the builtin it stands for.

        Example::

            await platform.dspy.call("dspy", "ensure_signature", ["question -> answer"],
                                     session_id=session.id)
        """
        check_target(class_path, self._settings.import_allow)
        check_method(method)
        if method == "__init__" and session_id is None:
            raise ValidationFailed(
                f"an instance of {class_path} is kept in a session; start one and pass its id"
            )
        if class_path.startswith(STORED):
            self._records.get(session_id or "", class_path.removeprefix(STORED))
        arguments = {
            "class_path": class_path,
            "method": method,
            **call_arguments(args, kwargs),
            "keep": session_id is not None,
        }
        return await self._keeping("dspy.call", arguments, session_id, config, timeout)

    async def create_instance(
        self,
        class_path: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        session_id: str,
        timeout: Timeout = None,
    ) -> str:
        """Create an instance of a class in the session's worker and return its id.

        It lives until it is released, its session closes or its worker ends.

        Raises:
            NotAllowed: the path is outside the setting ``import_allow``.
            SignatureInvalid: it is a class of DSPy, and its signature does not parse.

        Example::

            qa = await platform.dspy.create_instance(
                "dspy.ChainOfThought", ["question -> answer"], session_id=session.id
            )
            await platform.dspy.execute_instance(qa, {"question": "?"}, session_id=session.id)
        """
        check_path(class_path, self._settings.import_allow)
        given = call_arguments(args, kwargs)
        signature = _signature_of(class_path, **given)
        result = await self.call(
            class_path, "__init__", **given, session_id=session_id, timeout=timeout
        )
        if not isinstance(result, dict) or "stored" not in result:
            raise ValidationFailed(f"{class_path} made a {type(result).__name__}, which is data")
        instance_id = str(result["stored"]).removeprefix(STORED)
        self._records.describe(session_id, instance_id, signature)
        return instance_id

    async def execute_instance(
        self,
        instance_id: str,
        inputs: Mapping[str, Any],
        *,
        session_id: str,
        method: str = "__call__",
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Any:
        """Call an instance of the session with ``inputs`` as keyword arguments.

        Inputs are data: a text that looks like an address stays a text. The result is that of
        ``call``.

        Raises:
            InstanceNotFound: the session has no instance of that id.
            SessionLost: its worker has ended, and the instance with it.
            InputMismatch: ``inputs`` are not the fields of its signature. Nothing was sent.
        """
        check_method(method)
        record = self._records.get(session_id, instance_id.removeprefix(STORED))
        if record.signature is not None and method == "__call__":
            record.signature.check_inputs(inputs)
        arguments = {
            "instance_id": record.instance_id,
            "method": method,
            "inputs": named_arguments("inputs", inputs),
        }
        return await self._keeping("dspy.execute", arguments, session_id, config, timeout)

    async def release(self, instance_id: str, *, session_id: str) -> bool:
        """Forget an instance; say whether there was one. Its worker drops it when it is free."""
        await self._sessions.get(session_id)
        instance_id = instance_id.removeprefix(STORED)
        if not self._records.remove(session_id, instance_id):
            return False
        await self._forget_later(session_id, [instance_id])
        return True

    async def discover_schema(self, module_path: str, *, timeout: Timeout = None) -> dict[str, Any]:
        """Describe a module, class or function: parameters, methods, documentation.

        The keys are ``path``, ``kind``, ``doc``, and for a module ``version``, ``classes`` and
        ``functions`` by name; a class has ``category`` ("module", "optimizer", "adapter", ...),
        ``bases``, ``parameters`` and ``methods``.

        Raises:
            NotAllowed: the path is outside the setting ``import_allow``.
            ValidationFailed: there is nothing of that name.

        Example::

            schema = await platform.dspy.discover_schema("dspy")
            schema["classes"]["Predict"]["methods"]
        """
        arguments = {"module_path": check_path(module_path, self._settings.import_allow)}
        async with self._calls.begin(None, timeout) as call:
            described: dict[str, Any] = await call.execute(
                "dspy.discover_schema", arguments, idempotent=True
            )
        return described

    async def aclose(self) -> None:
        """Stop waiting for workers to forget closed sessions; the pool ends them anyway."""
        for task in self._forgetting:
            task.cancel()
        await asyncio.gather(*self._forgetting, return_exceptions=True)

    # --- how calls are made --------------------------------------------------------------------

    async def _predict(
        self,
        command: str,
        signature: Signature,
        instructions: str | None,
        inputs: Mapping[str, Any],
        session_id: str | None,
        config: Mapping[str, Any] | None,
        timeout: Timeout,
    ) -> PredictionResult:
        spec = parse_signature(signature, instructions)
        arguments: dict[str, Any] = {
            "signature": spec.to_plain(), "inputs": spec.check_inputs(inputs),
        }  # fmt: skip
        started = time.monotonic()
        async with self._calls.begin(session_id, timeout) as call:
            arguments["context"] = await self._context(call, config)
            answer = await call.execute(command, arguments, affinity=self._affinity(call))
        return PredictionResult(
            fields=answer["fields"],
            session_id=call.session.id,
            worker=answer["worker"],
            elapsed=time.monotonic() - started,
        )

    async def _keeping(
        self,
        command: str,
        arguments: dict[str, Any],
        session_id: str | None,
        config: Mapping[str, Any] | None,
        timeout: Timeout,
    ) -> Any:
        """Make a call that may use instances in the session's worker, and leave some there."""
        async with self._calls.begin(session_id, timeout) as call:
            arguments["context"] = await self._context(call, config)
            session = call.session.id
            if arguments.get("keep", True):
                self._kept.add(session)
            try:
                answer = await call.execute(command, arguments, affinity=self._affinity(call))
            except InstanceNotFound as error:
                lost = self._records.lost(session, error.details.get("instance_id"))
                if lost is None:
                    raise
                raise lost from error
            if await self._is_open(session, call.deadline):
                self._records.add(session, answer["stored"])
            else:
                await self._forget_later(session, list(answer["stored"]))
            return answer["value"]

    def _affinity(self, call: SessionCall) -> Affinity | None:
        # What the session keeps is in one worker: its calls wait for that one.
        keeps = call.session.id in self._kept and call.session.affinity == "hint"
        return "strict_queue" if keeps else None

    async def _context(self, call: SessionCall, config: Mapping[str, Any] | None) -> dict[str, Any]:
        state, own, shared = await call.view(OPTION_VARIABLES, OPTION_PREFIX)
        more = self._model["kind"] == ModelKind.PROVIDER
        options = lm_options(own, shared, config, more=more)
        return {"lm": self._model, "options": options, "state": state}

    # --- the end of a session ------------------------------------------------------------------

    async def _is_open(self, session_id: str, deadline: float = math.inf) -> bool:
        """Whether a session is open, also if the storage can't say: nothing that has happened is
        undone then, and what belongs to the session is released when it is known to have ended.
        """
        try:
            return await answer_by(deadline, session_id, self._sessions.exists(session_id))
        except SnakepitError as error:
            _log.warning("session %r is taken to be open: %s", session_id, error)
            return True

    async def _session_closed(self, session_id: str) -> None:
        self._kept.discard(session_id)
        instance_ids = self._records.drop(session_id)
        if instance_ids:
            await self._forget_later(session_id, instance_ids)
        else:
            self._pools.known(session_id).release_session(session_id)

    async def _forget_later(self, session_id: str, instance_ids: list[str]) -> None:
        """Have the worker forget instances as soon as it is free, with nobody waiting for it."""
        if instance_ids:
            task = asyncio.create_task(self._forget(session_id, instance_ids))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)
            # One turn of the loop: it is in the queue before what the caller does next.
            await asyncio.sleep(0)

    async def _forget(self, session_id: str, instance_ids: list[str]) -> None:
        try:
            await self._pools.known(session_id).execute(
                "dspy.forget",
                {"instance_ids": instance_ids},
                session_id=session_id,
                timeout=None,
                affinity="strict_queue",
            )
        except SnakepitError as error:
            _log.debug("the worker of session %r has nothing to forget: %s", session_id, error)
        if not await self._is_open(session_id):
            self._pools.known(session_id).release_session(session_id)


#: Classes of DSPy whose call takes exactly the fields of the signature they are created with.
_CALLED_WITH_FIELDS = frozenset(
    {"dspy.Predict", "dspy.ChainOfThought", "dspy.ReAct", "dspy.ProgramOfThought", "dspy.CodeAct"}
)


def _signature_of(
    class_path: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> SignatureSpec | None:
    """Return the signature that a DSPy module is created with, checked, if it has one."""
    if class_path not in _CALLED_WITH_FIELDS:
        return None
    given = kwargs.get("signature", args[0] if args else None)
    if isinstance(given, str) and given.startswith(STORED):
        return None
    if isinstance(given, (str, Mapping)):
        return parse_signature(given)
    return None
