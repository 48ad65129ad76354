"""What is found of a machine's hardware: from what its tools print, and from its kernel's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import alive, wait_until

from snakepit import hardware
from snakepit.hardware import Accelerator, detect
from snakepit.hardware.accelerators import parse_apple
from snakepit.hardware.amd import find_amd
from snakepit.hardware.cpu import parse_cpuinfo
from snakepit.hardware.memory import parse_meminfo
from snakepit.hardware.nvidia import find_nvidia, parse_library, parse_query, with_parts
from snakepit.hardware.tools import run_tool

MIB = 1 << 20
UUIDS = ("GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-0aa1b2c3-0000-1111-2222-333344445555")
QUERIED = f"""\
{UUIDS[0]}, 81559, 81000, 550.54.15, NVIDIA H100 80GB HBM3
{UUIDS[1]}, [N/A], [N/A], 550.54.15, NVIDIA GB10, rev, 2
"""
LISTED = f"""\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: {UUIDS[0]})
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.10gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA GB10, rev, 2 (UUID: {UUIDS[1]})
"""
FIRST = Accelerator(
    kind="cuda",
    id=UUIDS[0],
    name="NVIDIA H100 80GB HBM3",
    memory_total=81559 * MIB,
    memory_free=81000 * MIB,
    driver="550.54.15",
)
SECOND = Accelerator(kind="cuda", id=UUIDS[1], name="NVIDIA GB10, rev, 2", driver="550.54.15")


# --- NVIDIA --------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs that are found before all others, on a machine without NVIDIA's
    package.
    """
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("snakepit.hardware.nvidia.find_spec", lambda _: None)
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_devices_and_their_parts_are_what_the_drivers_tool_lists(tools: Path) -> None:
    (tools / "queried").write_text(QUERIED)
    (tools / "listed").write_text(LISTED)
    install(
        tools, "nvidia-smi", f'case "$1" in -L) cat {tools}/listed;; *) cat {tools}/queried;; esac'
    )
    parts = [each.id for each in find_nvidia()]
    assert parts == [
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        UUIDS[1],
    ]


@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9",
        "echo 'No devices were found'",
        "kill -9 $$",
        "head -c 3000000 /dev/zero",
        "exit 0",
    ],
)
def test_a_tool_that_fails_finds_nothing(tools: Path, script: str) -> None:
    install(tools, "nvidia-smi", script)
    assert find_nvidia() == ()


def test_a_tool_that_hangs_is_given_up_with_all_it_started(tools: Path) -> None:
    install(tools, "hangs", f"sleep 1000 & echo $! > {tools}/child; wait")
    began = time.monotonic()
    assert run_tool(["hangs"], patience=1.0) is None
    assert time.monotonic() - began < 20.0, "it would hang for a thousand seconds"
    child = int((tools / "child").read_text())
    wait_until(lambda: not alive(child), "what it started is killed, too")


def test_a_tool_that_is_not_there_or_can_not_be_run_finds_nothing(tools: Path) -> None:
    assert run_tool(["there-is-no-such-tool"]) is None
    (tools / "broken").write_bytes(b"\x7fELF")
    (tools / "broken").chmod(0o755)
    assert run_tool(["broken"]) is None


def test_the_library_is_asked_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here there is no driver: the real library says so, and the tool is asked."""
    (tmp_path / "queried").write_text(QUERIED)
    install(tmp_path, "nvidia-smi", f'case "$1" in -L) ;; *) cat {tmp_path}/queried;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has such a device")
    assert find_nvidia() == (FIRST, SECOND)
    assert "pynvml" not in sys.modules


def test_what_the_tool_prints_is_read_as_it_is() -> None:
    assert parse_query(QUERIED) == (FIRST, SECOND)
    assert with_parts((FIRST, SECOND), "") == (FIRST, SECOND)


def test_what_the_library_tells_is_read_as_it_is() -> None:
    row = {"uuid": UUIDS[0], "name": "H100", "memory_total": MIB, "memory_free": 0, "driver": "550"}
    rows = [row, {"uuid": "GPU-1", "name": "no memory"}, {"uuid": 7}, None, {"name": "x"}]
    found = parse_library(json.dumps(rows))
    assert [(each.id, each.memory_total, each.memory_free) for each in found] == [
        (UUIDS[0], MIB, 0),
        ("GPU-1", None, None),
    ]


LINES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(QUERIED.splitlines() + LISTED.splitlines()),
        st.builds(lambda a, b: a[:b], st.sampled_from(LISTED.splitlines()), st.integers(0, 80)),
    ),
    max_size=8,
).map("\n".join)


@given(LINES)
def test_whatever_the_tool_prints_there_is_an_answer_and_ids_are_ids(text: str) -> None:
    found = with_parts(parse_query(text) or (FIRST, SECOND), text)
    for each in (*found, *parse_apple(text)):
        assert each.id.startswith(("GPU-", "MIG-")) or each.kind == "mps"
        assert not set(each.id) & set(", \n")


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["uuid", "name", "memory_total"]), inner)
    ),
    max_leaves=6,
)


@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_whatever_the_library_tells_there_is_an_answer(text: str) -> None:
    assert all(each.id.startswith(("GPU-", "MIG-")) for each in parse_library(text))


def test_nested_rows_of_the_library_are_refused() -> None:
    assert parse_library("[" * 100_000) == ()


# --- AMD, Apple ----------------------------------------------------------------------------------


def amd_node(root: Path, node: int, *, gpu: int, minor: int, openable: bool = True) -> None:
    folder = root / f"sys/class/kfd/kfd/topology/nodes/{node}"
    folder.mkdir(parents=True)
    (folder / "gpu_id").write_text(f"{gpu}\n")
    (folder / "name").write_text("gfx942\n")
    (folder / "properties").write_text(f"cpu_cores_count 0\ndrm_render_minor {minor}\n")
    if minor:
        device = root / f"sys/class/drm/renderD{minor}/device"
        device.mkdir(parents=True)
        (device / "mem_info_vram_total").write_text(str(64 * MIB))
        (device / "mem_info_vram_used").write_text(str(4 * MIB))
    if openable:
        (root / "dev/dri").mkdir(parents=True, exist_ok=True)
        (root / f"dev/dri/renderD{minor}").touch()


def test_amds_are_those_of_the_kernels_nodes_that_can_be_opened(tmp_path: Path) -> None:
    amd_node(tmp_path, 0, gpu=0, minor=0, openable=False)
    amd_node(tmp_path, 1, gpu=4711, minor=128)
    amd_node(tmp_path, 2, gpu=4712, minor=129, openable=False)
    amd_node(tmp_path, 10, gpu=4713, minor=130)
    found = find_amd(tmp_path)
    assert [(each.id, each.name) for each in found] == [("0", "gfx942"), ("1", "gfx942")]
    assert (found[0].memory_total, found[0].memory_free) == (64 * MIB, 60 * MIB)


def test_without_amds_driver_there_are_none(tmp_path: Path) -> None:
    assert find_amd(tmp_path) == ()


def test_apples_is_the_chip() -> None:
    (found,) = parse_apple("Apple M4 Pro\n25769803776\n")
    assert (found.kind, found.name, found.memory_total) == ("mps", "Apple M4 Pro", 24 << 30)


# --- processors and memory -----------------------------------------------------------------------


def test_processors_are_described_as_the_kernel_does() -> None:
    x86 = (
        "processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu sse2 avx2\n\nprocessor\t: 1\n"
    )
    assert parse_cpuinfo(x86) == ("AMD EPYC 7763", frozenset({"fpu", "sse2", "avx2"}))
    arm = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\nHardware\t: BCM2835\n"
    assert parse_cpuinfo(arm) == ("BCM2835", frozenset({"fp", "asimd", "sve"}))


@given(st.text())
def test_whatever_the_kernel_tells_there_is_an_answer(text: str) -> None:
    parse_cpuinfo(text)
    assert all(amount >= 0 for amount in parse_meminfo(text).values())


def test_memory_is_read_in_bytes() -> None:
    text = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\n"
    assert parse_meminfo(text) == {"MemTotal": 16 * MIB, "MemAvailable": 8 * MIB}


def test_this_machine_is_looked_at_once_and_again_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snakepit.hardware.detection._found", None)
    first = detect()
    assert 1 <= first.cpu.usable <= first.cpu.cores
    assert 0 < first.memory.usable <= first.memory.total
    assert detect() is first
    assert detect(refresh=True) is not first


def test_finding_out_imports_no_framework() -> None:
    code = (
        "import sys; from snakepit import hardware; hardware.detect(); "
        "print(sorted({'asyncio', 'numpy', 'torch', 'pynvml', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_all_that_is_public_is_there() -> None:
    assert all(hasattr(hardware, name) for name in hardware.__all__)
