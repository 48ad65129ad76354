"""The conformance suite: workers that keep the rules pass it, and each rule that is broken on
purpose is found, by its own id."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from node_programs import BROKEN, CONFORMANCE, needs_node

from snakepit.errors import ConfigurationError
from snakepit.testing.conformance import RULES, Report, Verdict, check_worker
from snakepit.testing.conformance.chapters.starting import COMMANDS
from snakepit.testing.conformance.chapters.values import KINDS, vectors_of
from snakepit.testing.golden import GOLDEN_VECTORS

# Each rule is checked with a process of its own, or several; on a busy machine all take minutes.
pytestmark = pytest.mark.timeout(400)
PYTHON = [sys.executable, "-c", "from snakepit.worker.main import main; main()"]
ASYNC = "async_conformance_worker:AsyncWorker"
GUIDE = Path(__file__).parents[3] / "docs/other-languages.md"
ABOUT_COMMANDS = [
    "call.",
    "error.",
    "ping.",
    "stream.",
    "cancel.",
    "recall.",
    "host.",
    "nested.",
    "events.",
]
NODE_LACKS = [
    "mark.deadline",
    "stacks.told",
    "stacks.written",
    "segments.received",
    "segments.sent",
    "events.told",
    "events.unheard",
    "events.listen",
]
# Only workers have it that tell events.
OPTIONAL_COMMAND = {"tell": False}


# --- workers that keep the rules -----------------------------------------------------------------


@pytest.mark.slow
def test_the_python_worker_keeps_all_rules() -> None:
    report = check_worker(PYTHON)
    assert (report.broken, report.not_offered) == ([], []), report


@pytest.mark.slow
def test_async_commands_in_python_keep_the_rules_about_commands() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    report = check_worker(PYTHON, rules=ABOUT_COMMANDS, target=ASYNC, env=env)
    assert (report.broken, report.not_offered) == ([], []), report


@needs_node
@pytest.mark.slow
def test_the_node_worker_keeps_all_rules_but_for_what_it_leaves_out() -> None:
    report = check_worker(CONFORMANCE)
    assert (report.broken, report.not_offered) == ([], NODE_LACKS), report


# --- rules that are broken on purpose ------------------------------------------------------------

# What `broken_worker.js` does, the group of rules that is looked at, and what has to be found.
FAULTS: list[tuple[str, str, list[str]]] = [
    ("versions are texts", "start.", ["start.hello"]),
    ("streams are not told", "start.", ["start.ready"]),
    ("any version will do", "start.", ["start.unknown_version"]),
    ("failure is a success", "start.", ["start.failed"]),
    ("shutdown is a failure", "end.", ["end.shutdown", "end.shutdown_waits"]),
    ("unknown flags are ignored", "frame.", ["frame.unknown_flag"]),
    ("longer bodies are refused", "body.", ["body.later_version"]),
    ("even ids are made odd", "call.", ["call.odd_id"]),
    ("unknown commands have run", "call.", ["call.unknown_command"]),
    ("inner errors are passed on as they are", "error.", ["error.passed_on"]),
    ("tokens are made texts", "ping.", ["ping.token"]),
    (
        "credit does not count",
        "stream.",
        ["stream.credit_items", "stream.credit_bytes", "stream.large_item"],
    ),
    ("running calls go on", "cancel.", ["cancel.running"]),
    ("early cancellations are forgotten", "cancel.", ["cancel.early"]),
    ("all that is asked for is recalled", "recall.", ["recall.started"]),
    ("host calls have no parent", "host.", ["host.call"]),
    ("time is endless", "host.", ["host.remaining"]),
    ("integers are floats", "value.", ["value.integer", "value.big_int"]),
]


@needs_node
@pytest.mark.parametrize(("fault", "group", "expected"), FAULTS, ids=[row[0] for row in FAULTS])
def test_a_rule_that_is_broken_is_found(fault: str, group: str, expected: list[str]) -> None:
    report = check_with(fault, group, expected)
    assert report.broken == expected, report


@needs_node
def test_results_that_come_twice_are_found_by_whatever_rule_comes_next() -> None:
    report = check_with("results come twice", "call.result", ["call.result"])
    assert report.broken == ["call.result"], report


def check_with(fault: str, group: str, expected: list[str]) -> Report:
    """Check a worker with a fault; some faults are that nothing comes, so without much patience.

    With more of it if something else is found: a machine may be so busy that a worker is late.
    """
    command = [*BROKEN, fault]
    report = check_worker(command, rules=[group], patience=2.0)
    return report if report.broken == expected else check_worker(command, rules=[group])


PROGRAMS = {
    "says nothing": ("import time; time.sleep(60)", "waited for HELLO: nothing came"),
    "ends at once": ("print('no such luck')", "the channel ended; its last output was:\nno such"),
    "writes text": ("import os; os.write(3, b'GET / HTTP/1.1 or so')", "on its data channel"),
    "closes data": ("import os; os.close(3); input()", "the channel ended"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_are_no_workers_break_the_first_rule(name: str) -> None:
    code, reason = PROGRAMS[name]
    patience = 0.5 if name == "says nothing" else 10.0
    report = check_worker([sys.executable, "-c", code], rules=["start.hello"], patience=patience)
    (finding,) = report.findings
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason


# --- the suite itself ----------------------------------------------------------------------------


def test_a_rule_is_chosen_by_its_id_and_a_group_by_its_beginning() -> None:
    report = check_worker(PYTHON, rules=["ping.token", "recall."])
    chosen = [finding.rule.rule_id for finding in report.findings]
    assert chosen == ["ping.token", *(rule for rule in RULES if rule.startswith("recall."))]
    assert str(report).endswith("5 kept, 0 broken, 0 not offered")


@pytest.mark.parametrize(
    ("command", "rules", "message"),
    [
        (["/no/such/program"], None, "can't be executed"),
        (PYTHON, ["ping"], "there is no rule 'ping'"),
    ],
)
def test_what_can_not_be_checked_is_told(command: Any, rules: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_worker(command, rules=rules)


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakepit.testing.conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_command_line_shows_the_rules_and_tells_by_its_exit_code() -> None:
    kept = run_suite("--rule", "ping.", "--", *PYTHON)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert kept.stdout.splitlines()[0].split()[:2] == ["kept", "ping.token"]
    dead = run_suite("--rule", "ping.token", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert (dead.returncode, dead.stdout.split()[0]) == (1, "broken")
    assert run_suite("--", "/no/such/program").returncode == 2


def test_the_commands_of_a_program_under_test_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (a stream)?", GUIDE.read_text(), re.M)
    assert {name: bool(streams) for name, streams in rows} == COMMANDS | OPTIONAL_COMMAND


def test_every_golden_vector_belongs_to_a_rule() -> None:
    vectors = json.loads((GOLDEN_VECTORS / "values.json").read_text())["vectors"]
    found = [vector["name"] for rule_id in KINDS for vector in vectors_of(rule_id)]
    assert sorted(found) == sorted(vector["name"] for vector in vectors)
    assert all(vectors_of(rule_id) for rule_id in KINDS)
