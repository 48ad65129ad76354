"""The whole bridge with real workers and a scripted model."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit import Health
from snakepit.errors import CallTimeout, ConfigurationError, PoolClosed, WorkerLost
from snakepit_grpc_bridge import Platform, Settings
from snakepit_grpc_bridge.errors import (
    InputMismatch,
    InstanceNotFound,
    ModelNotFound,
    NotAllowed,
    OutputFieldMissing,
    SessionLost,
    SessionNotFound,
    SignatureInvalid,
    StorageUnavailable,
    ToolExecutionFailed,
    ValidationFailed,
)
from snakepit_grpc_bridge.lm.errors import ModelUnreadable
from snakepit_grpc_bridge.testing import ScriptedModel

pytestmark = pytest.mark.slow

ALLOWED = ("dspy", "bridge_programs")


@asynccontextmanager
async def running(
    *responses: Any, matches: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Platform]:
    model = ScriptedModel(responses=responses or [{"answer": "yes"}], matches=matches or {})
    options: dict[str, Any] = {"workers": 1, "import_allow": ALLOWED, "timeout": 20} | settings
    async with Platform(Settings(model=model, **options)) as platform:
        yield platform


async def _shop(platform: Platform, session_id: str) -> str:
    return await platform.dspy.create_instance("bridge_programs.Shop", session_id=session_id)


# --- predictions ---------------------------------------------------------------------------------


async def test_predictions() -> None:
    thoughts = {"reasoning": "Two and two.", "answer": "4"}
    async with running({"answer": "Paris"}, thoughts, {"score": 7, "mood": "good"}) as platform:
        result = await platform.dspy.predict("question -> answer", {"question": "France?"})
        assert dict(result) == {"answer": "Paris"}
        assert result.reasoning is None
        assert result.worker == platform.pool.workers()[0].pid
        assert result.session_id.startswith("temp_session_")
        assert await platform.sessions.exists(result.session_id) is False
        assert 0 < result.elapsed < 20

        result = await platform.dspy.chain_of_thought("question -> answer", {"question": "2 + 2?"})
        assert (result.reasoning, result["answer"]) == ("Two and two.", "4")

        result = await platform.dspy.predict(
            "text -> score: int, mood: Literal['good', 'bad']", {"text": "x"}, instructions="Judge."
        )
        assert dict(result) == {"score": 7, "mood": "good"}
        assert platform.pool.stats().running == 0
        assert [session.id for session in await platform.sessions.list()] == ["global"]


async def test_wrong_calls_fail_before_anything_is_sent() -> None:
    async with running() as platform:
        before = platform.pool.stats().submitted
        with pytest.raises(SignatureInvalid, match="no output field"):
            await platform.dspy.predict("question ->", {"question": "?"})
        with pytest.raises(InputMismatch) as caught:
            await platform.dspy.predict("question -> answer", {"query": "?"})
        assert (caught.value.missing, caught.value.unexpected) == (["question"], ["query"])
        with pytest.raises(NotAllowed, match="import_allow"):
            await platform.dspy.call("os.path", "exists", ["/"])
        with pytest.raises(NotAllowed):
            await platform.dspy.discover_schema("subprocess")
        for path, method in [("dspy.__class__", "mro"), ("dspy..Predict", "x"), ("", "x")]:
            with pytest.raises(ValidationFailed):
                await platform.dspy.call(path, method)
        with pytest.raises(ValidationFailed, match="public name"):
            await platform.dspy.call("dspy.Predict", "__globals__")
        with pytest.raises(SessionNotFound):
            await platform.dspy.predict("a -> b", {"a": 1}, session_id="never")
        with pytest.raises(ValidationFailed, match="kept in a session"):
            await platform.dspy.call("dspy.Predict", "__init__", ["a -> b"])
        with pytest.raises(ValidationFailed, match="config"):
            await platform.dspy.predict("a -> b", {"a": 1}, config=["temperature"])  # type: ignore[arg-type]
        with pytest.raises(InputMismatch, match="'a' must be of type int, it was '1'"):
            await platform.dspy.predict("a: int -> b", {"a": "1"})
        for option in ({"bogus": 1}, {"temperature": "hot"}, {"max_tokens": -1}):
            with pytest.raises(ValidationFailed, match=f"option {next(iter(option))!r}"):
                await platform.dspy.predict("a -> b", {"a": 1}, config=option)
        await platform.variables.put("global", "ml_bogus", 1)
        with pytest.raises(ValidationFailed, match="option 'bogus'"):
            await platform.dspy.predict("a -> b", {"a": 1})
        with pytest.raises(ConfigurationError, match="timeout"):
            await platform.dspy.predict("a -> b", {"a": 1}, timeout=0)
        assert platform.pool.stats().submitted == before


async def test_an_answer_without_an_output_field() -> None:
    async with running(matches={"": "I would rather not say."}) as platform:
        with pytest.raises(OutputFieldMissing) as caught:
            await platform.dspy.predict("question -> answer", {"question": "?"})
        assert caught.value.missing == ["answer"]
        assert caught.value.__cause__ is not None
        assert "rather not say" in str(caught.value.__cause__)


# --- the session's variables, tools and instances ------------------------------------------------


async def test_variables_are_options_of_the_model_and_never_inputs() -> None:
    async with running() as platform, platform.sessions.open() as session:
        await platform.variables.put("global", "temperature", 0.1)
        await platform.variables.put("global", "ml_seed", 7)
        await platform.variables.put(session.id, "max_tokens", 50)

        async def options(**more: Any) -> Any:
            return await platform.dspy.call("bridge_programs.lm_options", **more)

        assert await options() == {"temperature": 0.1, "seed": 7}
        seen = await options(session_id=session.id)
        assert seen == {"temperature": 0.1, "seed": 7, "max_tokens": 50}
        await platform.variables.put(session.id, "temperature", 0.9)
        assert (await options(session_id=session.id))["temperature"] == 0.9
        seen = await options(session_id=session.id, config={"temperature": 0.5})
        assert seen["temperature"] == 0.5


async def test_a_program_uses_the_hosts_tools_and_variables_of_its_own_session() -> None:
    async with running(matches={"": {"answer": "6 Euro"}}) as platform:
        asked: list[str] = []

        async def price(item: str) -> float:
            asked.append(item)
            return 3.0

        await platform.tools.register("price", price)
        async with platform.sessions.open() as one, platform.sessions.open() as other:
            await platform.variables.put(one.id, "rate", 2.0)
            shop = await platform.dspy.create_instance("bridge_programs.Shop", session_id=one.id)
            inputs = {"question": "How much?", "item": "pear"}
            result = await platform.dspy.execute_instance(shop, inputs, session_id=one.id)
            assert result == {"answer": "6 Euro"}
            assert asked == ["pear"]
            assert await platform.variables.get(one.id, "last_price") == 6.0
            assert await platform.variables.exists(other.id, "last_price") is False
            await platform.tools.register("secret", price, session_id=one.id)
            seen = await platform.dspy.call("bridge_programs.tools", session_id=other.id)
            assert seen == ["price"]


async def test_a_failing_tool_keeps_its_causes_through_the_worker() -> None:
    async with running() as platform:
        await platform.tools.register("price", lambda item: {}[item])
        async with platform.sessions.open() as session:
            shop = await platform.dspy.create_instance(
                "bridge_programs.Shop", session_id=session.id
            )
            with pytest.raises(ToolExecutionFailed, match="'price' raised KeyError") as caught:
                await platform.dspy.execute_instance(
                    shop, {"question": "?", "item": "pear"}, session_id=session.id
                )
            assert isinstance(caught.value.__cause__, KeyError)


async def test_a_tool_runs_another_program_in_the_same_session() -> None:
    async with running({"answer": "3"}, {"answer": "all in all 3"}) as platform:
        await platform.sessions.start("s")

        async def price(item: str) -> float:
            inner = await platform.dspy.predict("item -> answer", {"item": item}, session_id="s")
            return float(inner["answer"])

        await platform.tools.register("price", price)
        shop = await _shop(platform, "s")
        result = await platform.dspy.execute_instance(
            shop, {"question": "?", "item": "pear"}, session_id="s"
        )
        assert result == {"answer": "all in all 3"}


async def test_instances() -> None:
    async with running() as platform, platform.sessions.open() as session:

        async def call(path: str, *args: Any, **more: Any) -> Any:
            return await platform.dspy.call(path, *args, session_id=session.id, **more)

        counter = await platform.dspy.create_instance(
            "bridge_programs.Counter", kwargs={"start": 5}, session_id=session.id
        )
        address = f"stored.{counter}"
        assert await call(address) == 6
        assert await call(address, "add_from", [address]) == 12
        assert await call("bridge_programs.Counter", "twice", [4]) == 8
        # Inputs of an instance are data, also when they look like an address.
        echoed = await platform.dspy.execute_instance(
            counter, {"text": address}, session_id=session.id, method="echo"
        )
        assert echoed == address
        result = await call("bridge_programs.plain_and_not")
        assert result["numbers"] == (1, {2})
        assert result["example"] == {"a": 1}
        assert await call(result["what"]["stored"]) == 8
        with pytest.raises(ValidationFailed, match="async"):
            await call(address, "later")
        async with platform.sessions.open() as other:
            with pytest.raises(InstanceNotFound):
                await platform.dspy.call(address, session_id=other.id)
        assert await platform.dspy.release(counter, session_id=session.id) is True
        assert await platform.dspy.release(counter, session_id=session.id) is False
        with pytest.raises(InstanceNotFound):
            await call(address)


async def test_a_sessions_calls_wait_for_the_worker_that_keeps_its_instances() -> None:
    async with running(workers=2) as platform:
        inside, done = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            inside.set()
            await done.wait()

        await platform.tools.register("wait", wait)
        async with (
            platform.sessions.open(concurrency=2) as session,
            platform.sessions.open() as other,
        ):
            counter = await platform.dspy.create_instance(
                "bridge_programs.Counter", session_id=session.id
            )
            blocked = asyncio.create_task(
                platform.dspy.call("bridge_programs", "waits_for_the_host", session_id=session.id)
            )
            await inside.wait()
            late = asyncio.create_task(
                platform.dspy.call(f"stored.{counter}", session_id=session.id)
            )
            # The free worker serves others meanwhile.
            numbers = [
                await platform.dspy.call(
                    "bridge_programs.Counter", "twice", [n], session_id=other.id
                )
                for n in range(3)
            ]
            assert numbers == [0, 2, 4]
            assert platform.pool.stats().queued == 1
            done.set()
            assert await late == 1
            await blocked


async def test_an_instances_signature_is_checked_at_the_call_site() -> None:
    async with running({"answer": "yes"}) as platform, platform.sessions.open() as session:
        with pytest.raises(SignatureInvalid):
            await platform.dspy.create_instance(
                "dspy.Predict", ["question ->"], session_id=session.id
            )
        qa = await platform.dspy.create_instance(
            "dspy.Predict", ["question -> answer"], session_id=session.id
        )
        with pytest.raises(InputMismatch):
            await platform.dspy.execute_instance(qa, {"query": "?"}, session_id=session.id)
        result = await platform.dspy.execute_instance(qa, {"question": "?"}, session_id=session.id)
        assert result == {"answer": "yes"}


async def test_sessions_forget_their_instances_when_they_close() -> None:
    async with running() as platform:
        async with platform.sessions.open("s") as session:
            counter = await platform.dspy.create_instance(
                "bridge_programs.Counter", session_id=session.id
            )
            assert await platform.dspy.call("bridge_programs.counters") == 1
        # The worker has been told to forget it, and takes its calls in order.
        assert await platform.dspy.call("bridge_programs.counters") == 0
        await platform.sessions.start("s")
        with pytest.raises(InstanceNotFound):
            await platform.dspy.call(f"stored.{counter}", session_id="s")
        await platform.sessions.close("s")
        assert platform.pool.worker_of_session("s") is None


async def test_results_that_are_no_data_need_a_session() -> None:
    async with running() as platform:
        with pytest.raises(ValidationFailed, match=r"result\.what is a bridge_programs\.Counter"):
            await platform.dspy.call("bridge_programs.plain_and_not")


# --- isolation and failures ----------------------------------------------------------------------


async def test_programs_get_no_variable_that_looks_like_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = (
        *("OPENAI_API_KEY", "APIKEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        *("SECRETKEY", "DJANGO_SECRET_KEY", "CLIENT_SECRET", "SSH_PRIVATE_KEY"),
        *("TOKEN", "GITHUB_TOKEN", "GITHUB_PAT", "AWS_SESSION_TOKEN"),
        *("PASSWORD", "PGPASSWORD", "DB_PASSWD", "MYSQL_PWD", "KEY_PASSPHRASE"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "openai_api_key", "Db_Password"),
    )
    others = ("KEYBOARD", "TOKENIZERS_PARALLELISM", "XPATH", "MONKEY")
    for name in (*secrets, *others):
        monkeypatch.setenv(name, "value-of-a-variable")
    async with running() as platform:
        seen = await platform.dspy.call("bridge_programs.environment")
    assert set(secrets) & set(seen) == set()
    assert set(others) | {"PATH", "HOME"} <= set(seen)


async def test_a_call_sees_clean_settings_and_cant_change_them_for_others() -> None:
    async with running() as platform:
        seen = await platform.dspy.call("bridge_programs.settings_seen")
        assert (seen["lm"], seen["history"], seen["trace"]) == ("LM", False, [])
        assert (seen["memory_cache"], seen["disk_cache"]) == (False, False)
        async with platform.sessions.open() as session:
            program = await platform.dspy.create_instance(
                "bridge_programs.Configures", session_id=session.id
            )

            async def attempt(method: str, **inputs: str) -> None:
                with pytest.raises(ConfigurationError, match=r"refused.*(dspy\.context|Remove)"):
                    await platform.dspy.execute_instance(
                        program, inputs, session_id=session.id, method=method
                    )

            for way in ("configure", "settings", "attribute", "cache"):
                await attempt("forward", way=way)
            await attempt("on_a_thread")
        after = await platform.dspy.call("bridge_programs.settings_seen")
        assert after["lm"] == "LM"


async def test_paths_that_lead_out_of_the_allow_list_are_refused_in_the_worker() -> None:
    async with running() as platform:
        with pytest.raises(NotAllowed, match="leads to os"):
            await platform.dspy.call("dspy.clients.os.system", args=["true"])
        with pytest.raises(ValidationFailed, match="did you mean 'Predict'"):
            await platform.dspy.call("dspy.Predictt", "load")
        with pytest.raises(ValueError, match="out of paper"):
            await platform.dspy.call("bridge_programs", "fails")


async def test_discovering_what_a_module_offers() -> None:
    async with running() as platform:
        schema = await platform.dspy.discover_schema("dspy")
        predict = schema["classes"]["Predict"]
        assert predict["category"] == "module"
        assert predict["parameters"][0]["name"] == "signature"
        assert predict["parameters"][0]["required"] is True
        assert "forward" in predict["methods"]
        assert schema["classes"]["BootstrapFewShot"]["category"] == "optimizer"
        assert "asyncify" in schema["functions"]
        own = await platform.dspy.discover_schema("bridge_programs.Counter")
        assert own["methods"]["twice"]["binding"] == "static"
        assert own["doc"].startswith("Keeps a state")
        with pytest.raises(ValidationFailed):
            await platform.dspy.discover_schema("dspy.nothing_of_the_kind")


async def test_a_killed_worker_costs_its_call_and_the_sessions_instances() -> None:
    async with running({"answer": "yes"}) as platform, platform.sessions.open() as session:
        await platform.variables.put(session.id, "x", 1)
        counter = await platform.dspy.create_instance(
            "bridge_programs.Counter", session_id=session.id
        )
        with pytest.raises(WorkerLost) as caught:
            await platform.dspy.call(f"stored.{counter}", "die", session_id=session.id)
        assert caught.value.signal == "SIGKILL"
        for _ in range(2):
            with pytest.raises(SessionLost, match=r"of bridge_programs\.Counter"):
                await platform.dspy.call(f"stored.{counter}", session_id=session.id)
        assert await platform.variables.get(session.id, "x") == 1
        again = await platform.dspy.create_instance(
            "bridge_programs.Counter", session_id=session.id
        )
        assert await platform.dspy.call(f"stored.{again}", session_id=session.id) == 1


async def test_a_late_call_is_ended_and_the_next_one_runs() -> None:
    async with running({"answer": "yes"}) as platform:
        with pytest.raises(CallTimeout):
            await platform.dspy.call("bridge_programs", "spins", timeout=0.2)
        result = await platform.dspy.predict("question -> answer", {"question": "?"})
        assert result["answer"] == "yes"


async def test_a_cancelled_call_closes_its_temporary_session() -> None:
    async with running() as platform:
        entered = asyncio.Event()

        async def wait() -> None:
            entered.set()
            await asyncio.Event().wait()

        await platform.tools.register("wait", wait)
        task = asyncio.create_task(platform.dspy.call("bridge_programs", "waits_for_the_host"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [session.id for session in await platform.sessions.list()] == ["global"]


async def test_without_a_model_all_works_but_what_asks_it() -> None:
    options: dict[str, Any] = {"workers": 1, "import_allow": ALLOWED, "timeout": 20}
    async with Platform(Settings(model="none", **options)) as platform:
        assert platform.health() == Health(live=True, ready=True)
        async with platform.sessions.open() as session:
            await platform.variables.put(session.id, "rate", 0.5)
            assert await platform.variables.get(session.id, "rate") == 0.5
            with pytest.raises(ModelNotFound, match="model='none'"):
                await platform.dspy.predict("a -> b", {"a": "x"}, session_id=session.id)
            # The same worker goes on.
            assert await platform.python.call("bridge_programs.counters") == 0


async def test_health_is_that_of_both_pools() -> None:
    platform = Platform(Settings(model="openai/none", api_base="http://127.0.0.1:9", workers=1))
    assert platform.health().live
    assert [why.partition(":")[0] for why in platform.health().reasons] == ["programs", "lm"]
    async with platform:
        assert platform.health() == Health(live=True, ready=True)
        engine = platform.lm.pool
        assert engine is not None
        await engine.aclose()
        one_is_closed = platform.health()
        assert (one_is_closed.live, one_is_closed.ready) == (False, False)
        assert [why.partition(":")[0] for why in one_is_closed.reasons] == ["lm"]
    assert not platform.health().live


async def test_a_platform_is_entered_once_and_closes_twice() -> None:
    platform = Platform(Settings(model=ScriptedModel(responses=["x"]), workers=1))
    await platform.aclose()
    async with platform:
        pid = platform.pool.workers()[0].pid
    await platform.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, signal.SIGCONT)
    with pytest.raises(PoolClosed):
        await platform.start()
    with pytest.raises(PoolClosed, match="platform is closed"):
        await platform.dspy.predict("a -> b", {"a": 1})
    with pytest.raises(StorageUnavailable, match="or the platform"):
        await platform.variables.list("global")


async def test_a_failing_start_leaves_nothing_and_names_the_cause(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + b"\0" * 64)
    platform = Platform(Settings(model=f"gguf:{broken}", workers=1))
    with pytest.raises(ModelUnreadable, match=r"broken\.gguf"):
        await platform.start()
    await platform.aclose()


async def test_a_cancelled_start_leaves_nothing() -> None:
    platform = Platform(Settings(model=ScriptedModel(responses=["x"]), workers=1))
    task = asyncio.create_task(platform.start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await platform.aclose()


@pytest.mark.parametrize("model", ["gguf:/nowhere/model.gguf", "no such model", "gguf:"])
def test_a_model_that_is_not_there_fails_before_anything_starts(model: str) -> None:
    with pytest.raises(ModelNotFound):
        Platform(Settings(model=model))


@pytest.mark.model
async def test_the_embedded_model_answers() -> None:
    async with Platform(Settings(workers=1)) as platform:
        result = await platform.dspy.predict(
            "question -> answer", {"question": "What is the capital of France?"}
        )
        assert "Paris" in result["answer"]
