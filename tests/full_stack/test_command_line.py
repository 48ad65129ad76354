"""The command line as a user meets it: another process, its output, its exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DSPEX = str(Path(sys.executable).with_name("dspex"))
FRANCE = "What is the capital of France?"
NEWS = "Tim Cook, the CEO of Apple, met Angela Merkel in Berlin."
FOUND = {
    "people": ["Tim Cook", "Angela Merkel"],
    "organizations": ["Apple"],
    "locations": ["Berlin"],
}


def dspex(
    *arguments: str, prefix: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [*prefix, DSPEX, *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        **{"stdin": subprocess.DEVNULL} | options,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, pattern: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(rf"dspex[ a-z]*: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr


# --- help and usage ------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = dspex("--help")
    assert done.returncode == 0
    for command in "ask classify summarize extract generate predict demo model 124 130".split():
        assert command in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, dspex.cli.app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"rich", "msgpack", "pydantic", "dspy", "snakepit_grpc_bridge.platform"}
    assert heavy & set(loaded) == set()


def test_the_usage_line_reads_like_the_documentation() -> None:
    assert dspex("ask", "-h").stdout.startswith("Usage: dspex ask [OPTIONS] QUESTION\n")
    predict = dspex("predict", "-h").stdout
    assert predict.startswith("Usage: dspex predict [OPTIONS] SIGNATURE NAME=VALUE...\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aks"], "No such command 'aks'"),
        (["ask"], "Missing argument"),
        (["ask", "x", "--workers", "two"], "--workers"),
        (["ask", "x", "--modle", "y"], "No such option"),
        (["classify", "x"], "--categories"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = dspex(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- settings, models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--workers", "0"], 2, "workers must be .* at least 1"),
        (["--timeout", "-1"], 2, "timeout is -1.0; it has to be a positive number"),
        (["--model", "embeded"], 2, "did you mean 'embedded'"),
        (["--model", "gguf:/no/such.gguf"], 2, "check the path"),
        (["--model", "gguf:/dev/null"], 2, "GGUF"),
        (["--api-base", "http://localhost"], 2, "has no server"),
    ],
)
def test_a_wrong_setting_is_one_line_with_a_next_step(
    arguments: list[str], code: int, message: str
) -> None:
    assert_one_line(dspex("ask", "x", *arguments), code, message)


@pytest.mark.parametrize("arguments", [["ask", "x"], ["demo"]])
def test_settings_of_the_environment_count(arguments: list[str]) -> None:
    environment = os.environ | {"DSPEX_WORKERS": "0"}
    assert_one_line(dspex(*arguments, env=environment), 2, "workers must be .* at least 1")


def test_a_missing_model_names_the_command_that_gets_it(tmp_path: Path) -> None:
    environment = os.environ | {"DSPEX_MODEL_DIR": str(tmp_path)}
    assert_one_line(dspex("ask", "x", env=environment), 2, "dspex model install")
    status = dspex("model", "status", env=environment)
    assert (status.returncode, status.stderr) == (1, "")
    assert "dspex model install" in status.stdout
    assert dspex("model", "path", env=environment).stdout.startswith(str(tmp_path))
    assert dspex("model", "remove", env=environment).returncode == 0


def test_debug_shows_the_traceback() -> None:
    done = dspex("ask", "x", "--model", "nope", "--debug")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dspex: there is no model")


# --- real answers --------------------------------------------------------------------------------


def offline() -> tuple[str, ...]:
    """The command prefix that takes the network away, if this system has one."""
    prefix = ("unshare", "--map-root-user", "--net")
    if shutil.which("unshare") is None:
        return ()
    done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
    return prefix if done.returncode == 0 else ()


@pytest.mark.model
def test_a_question_is_answered_without_a_network() -> None:
    done = dspex("ask", FRANCE, prefix=offline())
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.model
def test_entities_as_json() -> None:
    done = dspex("extract", NEWS, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == FOUND


@pytest.mark.model
def test_a_prediction_as_json_is_an_object_of_its_fields() -> None:
    done = dspex("predict", "country -> capital", "country=Italy", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"capital": "Rome"})


@pytest.mark.model
def test_a_text_from_standard_input_and_a_signature() -> None:
    done = subprocess.run(
        [DSPEX, "predict", "question -> answer", "question=-"],
        input=FRANCE,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "answer: Paris" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "question ->", "question=x"], "there is no output field after '->'"),
        # What a shell makes of: predict question -> answer question=x
        (["predict", "question", "-", "question=x"], "write it in quotes"),
        (["predict", "question -> answer", "query=x"], "missing: question"),
        (["predict", "question -> answer", "x"], "write NAME=VALUE"),
        (["predict", "number: int -> answer", "number=x"], "must be of type int, it was 'x'"),
        (["classify", "x", "-c", "a,a"], "more than once: a"),
        (["classify", "x", "-c", ","], "categories is empty"),
        (["summarize", "x", "--max-length", "0"], "at least 1"),
        (["generate", ""], "prompt is empty"),
        (["extract", " "], "text is empty"),
        (["ask", ""], "question is empty"),
    ],
)
def test_wrong_input_is_one_line_under_the_commands_name_before_anything_starts(
    arguments: list[str], message: str
) -> None:
    # No worker comes up with such an interpreter, so a start would be told instead.
    environment = os.environ | {"DSPEX_MODEL": "openai/none", "DSPEX_PYTHON": "/bin/false"}
    done = dspex(*arguments, env=environment)
    assert_one_line(done, 2, re.escape(message))
    assert done.stderr.startswith(f"dspex {arguments[0]}: ")


def test_a_missing_key_is_told_once_and_by_its_name() -> None:
    environment = {name: text for name, text in os.environ.items() if name != "OPENAI_API_KEY"}
    done = dspex("ask", FRANCE, "--model", "openai/gpt-5-mini", env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "dspex: the model 'openai/gpt-5-mini' failed: no key was found; set OPENAI_API_KEY in the "
        "environment\n"
    )


@pytest.mark.model
def test_out_of_time_has_its_own_exit_code() -> None:
    done = dspex("generate", "Write a long story.", "--timeout", "0.001")
    assert_one_line(done, 124, "")


@pytest.mark.model
def test_an_interrupt_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [DSPEX, "ask", FRANCE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not children_of(process.pid):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "dspex: interrupted\n")


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.model
def test_a_terminal_sees_signs_of_life_and_the_notice() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [DSPEX, "ask", FRANCE], stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=55,
        check=True,
    )  # fmt: skip
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "embedded model" in shown
    assert "Loading the model" in shown
    assert done.stdout == "Paris\n"


@pytest.mark.model
def test_the_tour_passes_and_is_plain_text() -> None:
    done = dspex("demo", prefix=offline())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "\x1b" not in done.stdout
    assert "9 of 9" in done.stdout
    assert "SIGKILL" in done.stdout
