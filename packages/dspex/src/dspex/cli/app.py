"""The commands, one function each. Heavy imports happen when a command runs, not for `--help`.

Each function checks what the user gave and returns the work, for which the processes are started.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspex.cli import demo, model
from dspex.cli.running import Output, Usage, Work, command

if TYPE_CHECKING:
    from dspex.client import AsyncClient
    from dspex.patterns import Steps
    from snakepit_grpc_bridge.dspy.signature import Field, SignatureSpec

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: no boxes in a pipe, and no time for importing rich
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Ask a language model, from the shell: the program runs in worker processes.\n\n"
        "A text given as - is read from standard input. Results go to standard output, all else to "
        "standard error.\n\n"
        "Exit codes: 0 done; 1 failed; 2 wrong usage, settings or input; 124 out of time; "
        "130 interrupted."
    ),
)
app.add_typer(model.app, name="model")
app.command("demo", cls=Usage)(demo.demo)

Text = Annotated[str, typer.Argument(help="The text, or - for standard input.")]


def _version(wanted: bool) -> None:
    if wanted:
        from dspex import __version__

        typer.echo(f"dspex {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that come before a command; all of them act by themselves."""


@app.command(cls=Usage)
@command
def ask(
    question: Annotated[str, typer.Argument(help="The question, or - for standard input.")],
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Think first, and show the thoughts.")
    ] = False,
) -> Work:
    """Answer a question."""
    from dspex import patterns

    asked = _read(question)
    _check(patterns.ask(asked))

    async def work(client: AsyncClient) -> Output:
        answer = await client.ask(asked, reasoning=reasoning)
        if not reasoning:
            return Output(data={"answer": answer}, lines=[answer])
        return Output(
            data={"answer": answer, "reasoning": answer.reasoning},
            lines=[f"reasoning: {answer.reasoning}", f"answer: {answer}"],
        )

    return work


@app.command(cls=Usage)
@command
def classify(
    text: Text,
    categories: Annotated[
        str, typer.Option("--categories", "-c", help="The categories, separated by commas.")
    ],
) -> Work:
    """Choose the category that fits a text."""
    from dspex import patterns

    given, names = _read(text), _list(categories)
    _check(patterns.classify(given, names))

    async def work(client: AsyncClient) -> Output:
        category = await client.classify(given, names)
        return Output(data={"category": category}, lines=[category])

    return work


@app.command(cls=Usage)
@command
def summarize(
    text: Text,
    max_length: Annotated[int, typer.Option(help="Words, at most.")] = 150,
) -> Work:
    """Summarize a text."""
    from dspex import patterns

    given = _read(text)
    _check(patterns.summarize(given, max_length=max_length))

    async def work(client: AsyncClient) -> Output:
        summary = await client.summarize(given, max_length=max_length)
        return Output(data={"summary": summary}, lines=[summary])

    return work


@app.command(cls=Usage)
@command
def extract(
    text: Text,
    types: Annotated[
        str, typer.Option("--types", "-t", help="What to look for, separated by commas.")
    ] = "people,organizations,locations",
) -> Work:
    """Find the people, organizations and locations that a text names."""
    from dspex import patterns

    given, names = _read(text), _list(types)
    _check(patterns.extract_entities(given, types=names))

    async def work(client: AsyncClient) -> Output:
        found = await client.extract_entities(given, types=names)
        lines = [f"{name}: {', '.join(entities) or '-'}" for name, entities in found.items()]
        return Output(data=found, lines=lines)

    return work


@app.command(cls=Usage)
@command
def generate(
    prompt: Annotated[str, typer.Argument(help="What to write, or - for standard input.")],
    style: Annotated[str, typer.Option(help="How to write it.")] = "natural",
    length: Annotated[int, typer.Option(help="Words, at most.")] = 150,
) -> Work:
    """Write a text."""
    from dspex import patterns

    given = _read(prompt)
    _check(patterns.generate(given, style=style, length=length))

    async def work(client: AsyncClient) -> Output:
        text = await client.generate(given, style=style, length=length)
        return Output(data={"text": text}, lines=[text])

    return work


@app.command(cls=Usage)
@command
def predict(
    signature: Annotated[
        str, typer.Argument(help='Inputs and outputs, as in "question -> answer: int".')
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE...",
            help="A value for each input; as JSON where its type is not text.",
        ),
    ],
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Think first (chain of thought).")
    ] = False,
) -> Work:
    """Run a DSPy signature."""
    from dspex.errors import SignatureInvalid
    from snakepit_grpc_bridge.dspy.signature import parse_signature

    if "->" not in signature:
        raise SignatureInvalid(
            f"the signature {signature!r} has no '->'; write it in quotes, as in \"question -> "
            'answer", since a shell takes a bare > for the name of a file'
        )
    parsed = parse_signature(signature)
    given = parsed.check_inputs(_fields(parsed, inputs))

    async def work(client: AsyncClient) -> Output:
        run = client.chain_of_thought if reasoning else client.predict
        result = await run(signature, given)
        return Output(
            data=dict(result), lines=[f"{name}: {value}" for name, value in result.items()]
        )

    return work


def _check(steps: Steps[Any]) -> None:
    """Raise what is wrong with a pattern's arguments: it checks them in its first step."""
    next(steps)
    steps.close()


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fields(signature: SignatureSpec, pairs: list[str]) -> dict[str, Any]:
    from dspex.errors import InputMismatch

    types = {field.name: field for field in signature.inputs}
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputMismatch(f"{pair!r} is no input; write NAME=VALUE, as in question='Why?'")
        text = _read(value)
        given[name] = _value(types[name], text) if name in types else text
    return given


def _value(field: Field, text: str) -> Any:
    """Return the text itself if the field takes it, else what it says as JSON."""
    if field.accepts(text):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
