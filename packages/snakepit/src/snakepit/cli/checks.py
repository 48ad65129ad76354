"""What `snakepit doctor` looks at on a machine, without starting anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import version

from snakepit.cli.finding import Finding, error, ok, warning
from snakepit.hardware import Hardware, detect
from snakepit.processes.linux import become_subreaper
from snakepit.processes.sweep import sweep_orphans
from snakepit.processes.vitals import private_memory
from snakepit.wire.memory import create_memory, map_memory

# A host with one pool has so many descriptors open, and so many more for each worker.
_HOST_FILES = 12
_FILES_A_WORKER = 3
_FEW_WORKERS = 32
_FEW_PROCESSES = 128
_SEGMENT_BYTES = 1 << 16


def look_at_machine() -> Iterator[Finding]:
    """Look at one thing after the other."""
    yield check_system(sys.platform)
    yield ok("Python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield check_msgpack()
    yield check_numpy()
    yield from check_hardware(detect())
    yield check_open_files(_soft_limit(resource.RLIMIT_NOFILE))
    yield check_processes(_soft_limit(resource.RLIMIT_NPROC))
    if sys.platform == "linux":
        yield check_supervision()
        yield check_proc()
        yield check_shared_memory()
    yield check_left_overs(len(sweep_orphans(dry_run=True)))


def check_system(name: str) -> Finding:
    """Whether workers can be looked after on this system."""
    if name == "linux":
        return ok("system", f"Linux {platform.release()}, {platform.machine()}")
    if name == "darwin":
        return warning(
            "system",
            "macOS: workers are spawned one by one, large values are copied, and workers that "
            "never return from C code outlive a host that was killed",
            "use Linux where that matters, for instance in a container",
        )
    return error("system", f"{name} is not supported", "use Linux, for instance WSL 2")


def check_msgpack() -> Finding:
    """Whether values are encoded by compiled code."""
    if importlib.util.find_spec("msgpack._cmsgpack") is not None:
        return ok("msgpack", f"{version('msgpack')}, compiled")
    return warning(
        "msgpack",
        f"{version('msgpack')} without its compiled part: calls take many times as long",
        "install a wheel of msgpack for this interpreter",
    )


def check_numpy() -> Finding:
    """Whether arrays can travel."""
    if importlib.util.find_spec("numpy") is not None:
        return ok("numpy", version("numpy"))
    return ok("numpy", "not installed; only needed where arrays travel")


def check_hardware(found: Hardware) -> Iterator[Finding]:
    """How many workers can compute at a time, what memory there is, and which devices."""
    cpu, memory = found.cpu, found.memory
    quota = "" if cpu.quota is None else f"; the control group allows the time of {cpu.quota:g}"
    yield ok("processors", f"{cpu.usable} of {cpu.cores} usable by this process{quota}")
    limit = (
        ""
        if memory.limit is None
        else f", of which the control group allows {gigabytes(memory.limit)}"
    )
    free = "" if memory.available is None else f", {gigabytes(memory.available)} available now"
    yield ok("memory", f"{gigabytes(memory.total)}{limit}{free}")
    devices = ", ".join(f"{each.name} ({each.kind})" for each in found.accelerators)
    yield ok("accelerators", devices or "none found")


def gigabytes(size: int) -> str:
    """An amount of memory."""
    return f"{size / 1e9:.1f} GB"


def check_open_files(limit: int | None) -> Finding:
    """For how many workers the descriptors of a host are enough; None for no limit."""
    if limit is None:
        return ok("open files", "no limit")
    workers = max(0, (limit - _HOST_FILES) // _FILES_A_WORKER)
    text = f"{limit}, enough for about {workers} workers in a host that opens nothing else"
    if workers >= _FEW_WORKERS:
        return ok("open files", text)
    return warning(
        "open files", text, "raise the limit: `ulimit -n 4096`, or LimitNOFILE= of systemd"
    )


def check_processes(limit: int | None) -> Finding:
    """How many processes and threads the user may have; None for no limit."""
    if limit is None or os.geteuid() == 0:
        return ok("processes", "no limit of the user")
    text = f"{limit} processes and threads of this user"
    if limit >= _FEW_PROCESSES:
        return ok("processes", text)
    return warning("processes", text, "raise the limit: `ulimit -u`, or TasksMax= of systemd")


def check_supervision() -> Finding:
    """Whether a keeper can be the parent of all workers, and see its host's end."""
    try:
        become_subreaper()  # of nothing: this process has no descendants yet
        os.close(os.pidfd_open(os.getpid()))
    except OSError as failure:
        return error(
            "supervision",
            f"prctl or pidfd_open is refused: {failure}",
            "allow both in the container's seccomp profile; pidfd_open needs Linux 5.3",
        )
    return ok("supervision", "subreaper, pidfd")


def check_proc() -> Finding:
    """Whether processes can be looked at."""
    pid = os.getpid()
    try:
        if os.readlink("/proc/self") != str(pid):
            raise OSError("it shows the processes of another namespace")
        os.listdir(f"/proc/{pid}/task")
        private_memory(pid)
    except OSError as failure:
        return warning(
            "/proc",
            f"can't be read: {failure}. Busy workers can't be told from frozen ones, left-overs "
            "are not found, and there are no stacks and no limits of memory",
            "mount /proc for this pid namespace, without hidepid",
        )
    return ok("/proc", "shows threads, memory and stacks of workers")


def check_shared_memory() -> Finding:
    """Whether large values can travel without being sent."""
    try:
        shared = create_memory(_SEGMENT_BYTES)
        try:
            map_memory(shared.fd, _SEGMENT_BYTES).close()
        finally:
            shared.memory.close()
            os.close(shared.fd)
    except OSError as failure:
        return warning(
            "shared memory",
            f"sealed anonymous memory can't be had: {failure}; large values are sent in pieces",
            "allow memfd_create in the container's seccomp profile",
        )
    return ok("shared memory", "sealed and anonymous")


def check_left_overs(count: int) -> Finding:
    """Whether killed hosts have left something."""
    if count == 0:
        return ok("left-overs", "none")
    return warning(
        "left-overs", f"{count} processes of hosts that were killed", "end them: `snakepit sweep`"
    )


def _soft_limit(kind: int) -> int | None:
    limit = resource.getrlimit(kind)[0]
    return None if limit == resource.RLIM_INFINITY else limit
