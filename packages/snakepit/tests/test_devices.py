"""Which accelerators workers are given. None is needed: what counts is the variable."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from after_check import CheckedPool
from hypothesis import given
from hypothesis import strategies as st
from processes import until

from snakepit import Devices, Pool, PythonAdapter, RecyclePolicy, Sizing
from snakepit.adapters.devices import DeviceSlots, visible
from snakepit.errors import ConfigurationError, RemoteError, WorkerLost
from snakepit.hardware import Accelerator, Cpu, Hardware, Memory
from snakepit.processes.fork_safety import held_devices

WORKER = "device_worker:Worker"
CUDA = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(autouse=True)
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CUDA, "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def new_pool(
    devices: Devices, target: str = WORKER, start: Any = "template", **options: Any
) -> Pool:
    return CheckedPool(PythonAdapter(target, devices=devices, start=start), **options)


def given_to(pool: Pool) -> dict[str, tuple[str, ...]]:
    return {info.worker_id: info.devices for info in pool.workers() if not info.leaving}


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "options", "complaint"),
    [
        ([], {}, "at least one"),
        ("0,1", {}, "a sequence"),
        (3, {}, "a sequence"),
        ([0, 0], {}, "named twice"),
        ([0, "0"], {}, "named twice"),
        ([-1], {}, "a number from 0 on"),
        ([1.5], {}, "a number from 0 on"),
        ([True], {}, "a number from 0 on"),
        (["0,1"], {}, "a number from 0 on"),
        (["a b"], {}, "a number from 0 on"),
        (["a\0"], {}, "a number from 0 on"),
        ([0], {"workers_per_device": 0}, "workers_per_device is 0"),
        ([0], {"devices_per_worker": 0}, "devices_per_worker is 0"),
        ([0], {"devices_per_worker": 2}, "only 1 devices"),
        ([0, 1], {"devices_per_worker": 2, "workers_per_device": 2}, "one of the two has to be 1"),
        ([0, 1], {"devices_per_worker": 2, "workers_per_device": None}, "one of the two"),
        ([0], {"variable": ""}, "variable is ''"),
        ([0], {"variable": "A=B"}, "variable is 'A=B'"),
    ],
)
def test_impossible_devices_are_refused(ids: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Devices(ids, **options)


def test_devices_that_the_environment_names_as_well_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"env has {CUDA}"):
        PythonAdapter(WORKER, devices=Devices([0]), env={CUDA: "3"})
    with pytest.raises(ConfigurationError, match="devices is a list"):
        PythonAdapter(WORKER, devices=[0])  # type: ignore[arg-type]


# --- who gets which: pure ------------------------------------------------------------------------


@given(
    st.integers(1, 6),
    st.sampled_from([(1, 1), (2, 1), (3, 1), (None, 1), (1, 2), (1, 3)]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60),
)
def test_devices_are_shared_evenly_and_by_no_more_than_may(
    count: int, share: tuple[int | None, int], steps: list[tuple[bool, int]]
) -> None:
    workers, per_worker = share
    per_worker = min(per_worker, count)
    devices = Devices(range(count), workers_per_device=workers, devices_per_worker=per_worker)
    slots, taken = DeviceSlots(devices), dict[str, tuple[str, ...]]()
    limit = devices.worker_limit
    for number, (takes, pick) in enumerate(steps):
        if not takes:
            if taken:
                gone = sorted(taken)[pick % len(taken)]
                slots.release(gone)
                del taken[gone]
            continue
        loads = _loads(taken, count)
        if limit is not None and len(taken) == limit:
            with pytest.raises(ConfigurationError, match="finds no device"):
                slots.take("one too many")
            continue
        got = taken[f"w{number:03}"] = slots.take(f"w{number:03}")
        assert len(set(got)) == per_worker
        # Nobody has to share who could have had one that fewer others have.
        assert sorted(loads[device] for device in got) == sorted(loads.values())[:per_worker]
        if workers is not None:
            assert max(_loads(taken, count).values()) <= workers


def _loads(taken: dict[str, tuple[str, ...]], count: int) -> dict[str, int]:
    held = [device for devices in taken.values() for device in devices]
    return {str(number): held.count(str(number)) for number in range(count)}


# --- real workers --------------------------------------------------------------------------------


async def test_26_each_worker_sees_its_own_device_before_its_class_is_constructed() -> None:
    async with new_pool(Devices(["GPU-a", "GPU-b"])) as pool:
        await pool.await_ready(10.0)
        seen = [await pool.execute("devices") for _ in range(4)]
        assert {each["construction"][CUDA] for each in seen} == {"GPU-a", "GPU-b"}
        # The template that has imported the module has seen none of them.
        assert {each["import"][CUDA] for each in seen} == {None}
        assert sorted(given_to(pool).values()) == [("GPU-a",), ("GPU-b",)]
        assert await pool.execute("asking") == "1"


async def test_26_a_spawned_worker_sees_its_device_before_anything_is_imported() -> None:
    devices = Devices([3, 5], variable="ROCR_VISIBLE_DEVICES")
    async with new_pool(devices, start="spawn") as pool:
        seen = [await pool.execute("devices") for _ in range(4)]
        for moment in ("import", "construction"):
            assert {each[moment]["ROCR_VISIBLE_DEVICES"] for each in seen} == {"3", "5"}


async def test_26_the_one_that_replaces_a_dead_worker_gets_its_device() -> None:
    async with new_pool(Devices(["a", "b", "c"]), quarantine_after=None) as pool:
        for _ in range(3):
            before = given_to(pool)
            with pytest.raises(WorkerLost):
                await pool.execute("die")
            await pool.await_ready(10.0)
            (gone,) = before.keys() - given_to(pool).keys()
            (new,) = given_to(pool).keys() - before.keys()
            assert given_to(pool)[new] == before[gone]


async def test_26_several_workers_share_a_device_evenly() -> None:
    async with new_pool(Devices([0, 1], workers_per_device=2)) as pool:
        await pool.await_ready(10.0)
        assert sorted(given_to(pool).values()) == [("0",), ("0",), ("1",), ("1",)]
    async with new_pool(Devices([0, 1], workers_per_device=None), size=5) as pool:
        await pool.await_ready(10.0)
        assert sorted(given_to(pool).values()) == [("0",)] * 3 + [("1",)] * 2


async def test_26_a_worker_may_have_several_devices() -> None:
    async with new_pool(Devices(range(4), devices_per_worker=2)) as pool:
        await pool.await_ready(10.0)
        assert sorted(given_to(pool).values()) == [("0", "1"), ("2", "3")]
        assert (await pool.execute("devices"))["construction"][CUDA] in ("0,1", "2,3")


async def test_26_a_device_has_one_worker_while_workers_are_recycled_reloaded_and_killed() -> None:
    """Two models do not fit on one device: the old worker is gone before the new one starts."""
    policy = RecyclePolicy(max_calls=2)
    async with new_pool(Devices(["a", "b"]), recycle=policy, quarantine_after=None) as pool:
        seen: list[list[tuple[str, ...]]] = []
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                seen.append([info.devices for info in pool.workers()])
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        for number in range(12):
            if number % 4 == 3:
                with pytest.raises(WorkerLost):
                    await pool.execute("die", timeout=10)
            elif number == 6:
                await pool.reload()
            else:
                await pool.execute("devices", timeout=10)
        done.set()
        await watching
        assert all(len(each) == len(set(each)) for each in seen), seen
        await until(lambda: sorted(given_to(pool).values()) == [("a",), ("b",)], "both are used")


async def test_26_a_worker_that_does_not_start_gives_its_device_back() -> None:
    adapter = PythonAdapter("pool_worker:Dies", devices=Devices(["a"]))
    for _ in range(3):
        with pytest.raises(Exception, match="none of its 1 workers started"):
            await Pool(adapter).start()
    assert adapter._slots is not None
    assert adapter._slots.take("w") == ("a",)


async def test_26_spare_and_added_workers_have_devices_of_their_own() -> None:
    async with new_pool(Devices(range(3)), size=Sizing(min=1, max=2, spares=1)) as pool:
        await until(lambda: len(pool.workers()) == 2, "one serves, one is ready")
        pool.resize(Sizing(min=2, max=2, spares=1))
        await until(lambda: len(pool.workers()) == 3, "two serve, one is ready")
        assert sorted(given_to(pool).values()) == [("0",), ("1",), ("2",)]


# --- faults of devices ---------------------------------------------------------------------------


async def test_26_what_has_initialized_a_driver_is_not_forked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a stand-in for torch: the check and what follows from it are the real ones."""
    with caplog.at_level(logging.WARNING, "snakepit.worker"):
        async with new_pool(Devices(["a"]), "device_worker:Initializes") as pool:
            assert (await pool.execute("devices"))["construction"][CUDA] == "a"
    assert "not forked but spawned: CUDA is initialized (by torch)" in caplog.text


def test_26_a_driver_is_initialized_when_its_device_is_open() -> None:
    asked = ["/dev/null", "socket:[5]", "/dev/nvidiactl", "/dev/nvidia0"]
    assert held_devices(asked) == []
    assert "/dev/nvidia-uvm is open" in held_devices([*asked, "/dev/nvidia-uvm"])[0]
    assert "/dev/kfd is open" in held_devices(["/dev/kfd", "/dev/kfd"])[0]


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ("fill", "torch.OutOfMemoryError", "allocate 2.00 GiB. GPU 0 has a total capacity of 8.00"),
        ("assert_on_device", "RuntimeError", "device-side assert triggered"),
    ],
)
async def test_26_an_error_of_a_device_is_its_calls_and_the_worker_is_replaced(
    command: str, error: str, message: str
) -> None:
    """Nobody knows what was going on when there was no more memory; and a process whose kernel has
    failed can use its device no more."""
    async with new_pool(Devices(["a"]), "device_worker:Failing") as pool:
        with pytest.raises(RemoteError):
            await pool.execute("fail")
        (before,) = given_to(pool)
        with pytest.raises(RemoteError, match=message) as caught:
            await pool.execute(command)
        assert caught.value.remote_type == error
        assert (await pool.execute("devices", timeout=10))["construction"][CUDA] == "a"
        assert before not in given_to(pool)


# --- which there are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("0,1", ("0", "1")),
        ("GPU-8f2e, GPU-11aa", ("GPU-8f2e", "GPU-11aa")),
        ("MIG-1/2/3", ("MIG-1/2/3",)),
        ("2,-1,3", ("2",)),
        ("-1", ()),
        ("", ()),
        ("NoDevFiles", ("NoDevFiles",)),
        ("1,1,2", ("1",)),
        ("0,,1", ("0",)),
    ],
)
def test_a_variable_names_devices_up_to_the_first_that_is_none(
    value: str, ids: tuple[str, ...]
) -> None:
    assert visible(value) == ids


@pytest.mark.parametrize("variable", [CUDA, "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_those_this_process_may_use_are_those_its_environment_names(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "4,7")
    found = Devices.detect(workers_per_device=3)
    assert found == Devices([4, 7], workers_per_device=3, variable=variable)
    monkeypatch.setenv(variable, "-1")
    with pytest.raises(ConfigurationError, match="may use no accelerator"):
        Devices.detect()


def with_accelerators(monkeypatch: pytest.MonkeyPatch, *found: Accelerator) -> None:
    hardware = Hardware(cpu=Cpu(cores=1, usable=1), memory=Memory(total=1), accelerators=found)
    monkeypatch.setattr("snakepit.adapters.devices.detect", lambda: hardware)


def test_without_such_a_variable_they_are_those_that_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    amd = [Accelerator(kind="rocm", id=str(number), name="MI300X") for number in range(2)]
    nvidia = Accelerator(kind="cuda", id="GPU-1", name="H100")
    apple = Accelerator(kind="mps", id="0", name="Apple M4")
    with_accelerators(monkeypatch, apple, *amd)
    assert Devices.detect() == Devices([0, 1], variable="ROCR_VISIBLE_DEVICES")
    with_accelerators(monkeypatch, *amd, nvidia)
    assert Devices.detect() == Devices(["GPU-1"])
    with_accelerators(monkeypatch, apple)
    with pytest.raises(ConfigurationError, match="leave devices= out") as caught:
        Devices.detect()
    assert caught.value.details["found"] == ["Apple M4"]
