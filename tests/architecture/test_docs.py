"""What the documents show is true: code runs, commands exist, links lead somewhere.

Everything runs with the network off where the system allows that (`unshare`).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_text import anchors, blocks, links
from node_programs import missing_node
from source_tree import ROOT, SOURCES, short

PACKAGE_PAGES = (ROOT / "packages").glob("*/README.md")
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *PACKAGE_PAGES])
PACKAGES = ROOT / "packages"
ALL_TEXTS = sorted(
    {*ROOT.glob("*.md"), *DOCUMENTS, *PACKAGES.glob("*/*.md"), *PACKAGES.glob("*/node/*.md")}
)
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
NEED_NODE = {"docs/other-languages.md", "examples/node_worker/main.py"}
RUNNER = ROOT / "tests/support/run_examples.py"
PROGRAMS = Path(sys.executable).parent
# Seconds. Some take forty on an idle machine.
LIMIT = 400
pytestmark = pytest.mark.timeout(LIMIT + 20)


@functools.cache
def offline() -> tuple[str, ...]:
    """The command prefix that takes the network away, if this system has one."""
    prefix = ("unshare", "--map-root-user", "--net")
    if shutil.which("unshare") is None:
        return ()
    works = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
    return prefix if works.returncode == 0 else ()


def run_offline(*command: str | Path) -> None:
    done = subprocess.run(
        [*offline(), *map(str, command)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def require_programs(path: Path) -> None:
    if short(path) in NEED_NODE and missing_node():
        pytest.skip(missing_node())


@pytest.mark.model
@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_code_in_documents_runs(path: Path) -> None:
    require_programs(path)
    if any(block.language == "python" for block in blocks(path.read_text())):
        run_offline(sys.executable, RUNNER, "markdown", path)


@pytest.mark.model
@pytest.mark.parametrize("path", EXAMPLES, ids=short)
def test_example_runs(path: Path) -> None:
    require_programs(path)
    run_offline(sys.executable, path)


@pytest.mark.model
@pytest.mark.parametrize("package", SOURCES)
def test_docstring_examples_run(package: str) -> None:
    run_offline(sys.executable, RUNNER, "docstrings", package)


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_commands_exist(path: Path) -> None:
    for line in console_lines(path.read_text()):
        if line.startswith(("dspex ", "snakepit ")):
            assert_program_knows(line)
        elif line.startswith("make "):
            words = line.partition("#")[0].split()[1:]
            assert {word for word in words if "=" not in word} <= make_targets(), line


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def console_lines(text: str) -> list[str]:
    """The commands of all shell blocks, without their prompt; continued lines are joined."""
    shells = [b for b in blocks(text) if b.language in {"console", "sh", "bash", "shell"}]
    lines = "\n".join(block.body for block in shells).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]


def assert_program_knows(line: str) -> None:
    """Ask the program itself: every word before the first value is a command with such options."""
    command = re.split(r" [#|<&]", line)[0]
    program, *words = re.sub(r"\"[^\"]*\"|'[^']*'", "TEXT", command).split()
    names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    commands = names[:2] if names[:1] == ["model"] else names[:1]
    help_text = help_of(program, *commands)
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    missing = [option for option in options if option not in help_text]
    assert missing == [], f"{line}: no such option: {missing}"


@functools.cache
def help_of(program: str, *commands: str) -> str:
    done = subprocess.run(
        [PROGRAMS / program, *commands, "--help"],
        env={"COLUMNS": "200", "TERM": "dumb", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{program} {' '.join(commands)} --help: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_console_sessions_are_true(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.note.startswith("run in:"):
            folder = ROOT / block.note.removeprefix("run in:").strip()
            for line, output in sessions(block.body):
                assert printed_by(line, folder) == output, line


def sessions(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def printed_by(line: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:/usr/bin:/bin"}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    ).stdout


@pytest.mark.parametrize("path", ALL_TEXTS, ids=short)
def test_links_lead_somewhere(path: Path) -> None:
    broken = [link for link in links(path.read_text()) if not resolves(link, path)]
    assert broken == []


def resolves(link: str, source: Path) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    file, _, fragment = link.partition("#")
    target = source.parent / file if file else source
    if not fragment or target.suffix != ".md":
        return target.exists()
    return target.exists() and fragment in anchors(target.read_text())


def test_samples_of_wrong_documents_are_found(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text(
        "# A title, here\n[ok](#a-title-here) [gone](no.md) [bad](#nothing) `[no](link)`\n"
        "```python\nprint(1)\n```\n<!-- output -->\n```text\n2\n```\n"
    )
    assert [ln for ln in links(document.read_text()) if not resolves(ln, document)] == [
        "no.md",
        "#nothing",
    ]
    with pytest.raises(AssertionError, match=r"doc\.md:(.|\n)*expected:\s+2\s+got:\s+1"):
        run_offline(sys.executable, RUNNER, "markdown", document)
    document.write_text("<!-- from: README.md -->\n```js\nno such line\n```\n")
    with pytest.raises(AssertionError, match=r"doc\.md:(.|\n)*this is no part of README\.md"):
        run_offline(sys.executable, RUNNER, "markdown", document)
