"""Runs the examples of one document or of one package's docstrings. A process of its own runs this.

    python run_examples.py markdown FILE       every Python block, all in one namespace
    python run_examples.py docstrings PACKAGE  every example in the package

A block under the comment `<!-- file: name.py -->` is that file, which later blocks can import.
Examples in docstrings may use `await`, and `client`: an open `dspex.Client`. A block under the
comment `<!-- output -->` must equal what the Python block before it printed; one under
`<!-- from: PATH -->` must be a part of that file of the repository.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import functools
import importlib
import inspect
import io
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_text import Block, blocks

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_markdown(path: Path) -> list[str]:
    """Run one document; stops at the first failure, as later blocks build on earlier ones."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        for block in blocks(path.read_text()):
            try:
                if block.note == "output":
                    _compare(block.body, printed)
                elif block.note.startswith("from:"):
                    _find(block.body, block.note.removeprefix("from:").strip())
                elif block.note.startswith("file:"):
                    Path(folder, block.note.removeprefix("file:").strip()).write_text(block.body)
                elif block.language == "python":
                    printed = _run_block(block, str(path), namespace)
            except Exception:
                return [f"{path}:{block.line}\n{traceback.format_exc()}"]
    return []


def _run_block(block: Block, file: str, namespace: dict[str, Any]) -> str:
    # The empty lines let tracebacks name the document's own lines.
    source = "\n" * (block.line - 1) + block.body
    if block.note.startswith("no-run:"):
        compile(source, file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(source, file, "exec"), namespace)
    return output.getvalue()


def run_docstrings(package: str) -> list[str]:
    """Run every example in the package."""
    failures = []
    with asyncio.Runner() as loop, contextlib.ExitStack() as stack:
        new_client = functools.cache(lambda: stack.enter_context(_new_client()))
        for test in examples_of(package):
            namespace = test.globs | {package: importlib.import_module(package)}
            namespace["asyncio"] = asyncio
            try:
                if _needs_client(test):
                    namespace["client"] = new_client()
                    namespace["client"].clear_global_session()
                _run_steps(test, namespace, loop)
            except Exception:
                failures.append(f"{test.name}\n{traceback.format_exc()}")
    return failures


def examples_of(package: str) -> Iterator[doctest.DocTest]:
    """All examples in docstrings, wherever they are in the package."""
    (folder,) = importlib.import_module(package).__path__
    for file in sorted(Path(folder).rglob("*.py")):
        written = len(re.findall(r"^ *>>> ", file.read_text(), re.MULTILINE))
        if written:
            parts = file.relative_to(folder).with_suffix("").parts
            module = importlib.import_module(".".join((package, *parts)).removesuffix(".__init__"))
            tests = doctest.DocTestFinder().find(module)
            found = {test.docstring: test for test in tests if test.examples}  # twins share theirs
            if sum(len(test.examples) for test in found.values()) != written:
                raise AssertionError(f"{file}: not all of its examples are found")
            yield from found.values()


def _needs_client(test: doctest.DocTest) -> bool:
    """Whether an example uses `client` and opens none."""
    text = "".join(example.source for example in test.examples)
    return "client" in text and not ("as client" in text or "client =" in text)


def _new_client() -> Any:
    from dspex.client import Client

    return Client()


def _run_steps(test: doctest.DocTest, namespace: dict[str, Any], loop: asyncio.Runner) -> None:
    for example in test.examples:
        code = compile(example.source, test.name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            result = eval(code, namespace)
            if inspect.iscoroutine(result):
                loop.run(result)
        _compare(example.want, output.getvalue())


def _find(part: str, path: str) -> None:
    if part not in Path(path).read_text():
        raise AssertionError(f"this is no part of {path}:\n{part}")


def _compare(wanted: str, got: str) -> None:
    if not doctest.OutputChecker().check_output(wanted, got, OPTIONS):
        raise AssertionError(f"expected:\n{wanted}\ngot:\n{got}")


def main() -> int:
    kind, what = sys.argv[1:]
    failures = run_markdown(Path(what)) if kind == "markdown" else run_docstrings(what)
    print("\n".join(failures), file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
