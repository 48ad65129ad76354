"""The commands, one function each. Heavy imports happen when a command runs, not for `--help`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspex.cli import demo, model
from dspex.cli.running import Output, command

if TYPE_CHECKING:
    from dspex.client import AsyncClient

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
app.command("demo")(demo.demo)

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


@app.command()
@command
async def ask(
    client: AsyncClient,
    question: Annotated[str, typer.Argument(help="The question, or - for standard input.")],
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Think first, and show the thoughts.")
    ] = False,
) -> Output:
    """Answer a question."""
    answer = await client.ask(_read(question), reasoning=reasoning)
    if not reasoning:
        return Output(data={"answer": answer}, lines=[answer])
    return Output(
        data={"answer": answer, "reasoning": answer.reasoning},
        lines=[f"reasoning: {answer.reasoning}", f"answer: {answer}"],
    )


@app.command()
@command
async def classify(
    client: AsyncClient,
    text: Text,
    categories: Annotated[
        str, typer.Option("--categories", "-c", help="The categories, separated by commas.")
    ],
) -> Output:
    """Choose the category that fits a text."""
    category = await client.classify(_read(text), _list(categories))
    return Output(data={"category": category}, lines=[category])


@app.command()
@command
async def summarize(
    client: AsyncClient,
    text: Text,
    max_length: Annotated[int, typer.Option(help="Words, at most.")] = 150,
) -> Output:
    """Summarize a text."""
    summary = await client.summarize(_read(text), max_length=max_length)
    return Output(data={"summary": summary}, lines=[summary])


@app.command()
@command
async def extract(
    client: AsyncClient,
    text: Text,
    types: Annotated[
        str, typer.Option("--types", "-t", help="What to look for, separated by commas.")
    ] = "people,organizations,locations",
) -> Output:
    """Find the people, organizations and locations that a text names."""
    found = await client.extract_entities(_read(text), types=_list(types))
    lines = [f"{name}: {', '.join(entities) or '-'}" for name, entities in found.items()]
    return Output(data=found, lines=lines)


@app.command()
@command
async def generate(
    client: AsyncClient,
    prompt: Annotated[str, typer.Argument(help="What to write, or - for standard input.")],
    style: Annotated[str, typer.Option(help="How to write it.")] = "natural",
    length: Annotated[int, typer.Option(help="Words, at most.")] = 150,
) -> Output:
    """Write a text."""
    text = await client.generate(_read(prompt), style=style, length=length)
    return Output(data={"text": text}, lines=[text])


@app.command()
@command
async def predict(
    client: AsyncClient,
    signature: Annotated[
        str, typer.Argument(help='Inputs and outputs, as in "question -> answer: int".')
    ],
    inputs: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="A value for each input.")
    ],
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Think first (chain of thought).")
    ] = False,
) -> Output:
    """Run a DSPy signature."""
    run = client.chain_of_thought if reasoning else client.predict
    result = await run(signature, _fields(inputs))
    return Output(data=result, lines=[f"{name}: {value}" for name, value in result.items()])


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fields(pairs: list[str]) -> dict[str, Any]:
    from dspex.errors import InputMismatch

    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputMismatch(f"{pair!r} is no input; write NAME=VALUE, as in question='Why?'")
        given[name] = _read(value)
    return given
