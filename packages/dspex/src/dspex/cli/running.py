"""Running one command: from the common options to a result on standard output."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from dspex.cli.failures import report

if TYPE_CHECKING:
    from dspex.client import AsyncClient
    from snakepit_grpc_bridge import Settings

NOTICE = (
    "Note: answers come from the embedded model (135 million weights), which is there to try "
    "things out. For a real one: --model openai/NAME, or --model gguf:PATH."
)

Model = Annotated[
    str | None,
    typer.Option("--model", help="embedded, gguf:PATH, PROVIDER/NAME or none.", show_default=False),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Processes that run programs; by default the setting, else 1 (demo: 2).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="Seconds for the answer, once all is loaded.", show_default=False
    ),
]
ApiBase = Annotated[
    str | None,
    typer.Option("--api-base", help="Address of the provider's server.", show_default=False),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options that every command has which talks to a model."""

    model: Model = None
    workers: Workers = None
    as_json: AsJson = False
    timeout: Timeout = None
    api_base: ApiBase = None
    debug: Debug = False

    def settings(self, *, workers: int = 1, **more: Any) -> Settings:
        """Return the settings: options that were given, then the environment, then the file.

        `workers` counts where none of them says how many: one command needs no more than one.
        """
        from snakepit_grpc_bridge import Settings

        given: dict[str, Any] = {
            "model": self.model,
            "workers": self.workers,
            "timeout": self.timeout,
            "api_base": self.api_base,
        }
        options = {name: value for name, value in given.items() if value is not None}
        return Settings.load(defaults={"workers": workers}, **options, **more)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command prints: an object for `--json`, and lines for people."""

    data: Mapping[str, Any]
    lines: list[str]


#: What a command does with its client once that is open.
Work = Callable[["AsyncClient"], Awaitable[Output]]


class Usage(TyperCommand):
    """Shows the arguments in the usage line as the documentation does, in any version of Typer."""

    def collect_usage_pieces(self, ctx: object) -> list[str]:
        """Return what follows the command's name."""
        names = [
            parameter.metavar or str(parameter.name).upper()
            for parameter in self.params
            if parameter.param_type_name == "argument"
        ]
        return ["[OPTIONS]", *names]


def command(prepare: Callable[..., Work]) -> Callable[..., None]:
    """Make a command of `prepare(...)`: add the common options, do the work, print its output.

    `prepare` reads and checks what the user gave, so that a mistake is told before any process
    starts; what it returns does the work.
    """

    def run(**given: Any) -> None:
        common = Common(**{field.name: given.pop(field.name) for field in fields(Common)})

        def action() -> None:
            client = _client(common)
            _show(asyncio.run(_run(prepare(**given), client, common)), common)

        failing_with_exit_code(action, debug=common.debug, name=prepare.__name__)

    # The client's class is not imported for `--help`, so its name means nothing yet.
    hints = get_type_hints(prepare, localns={"AsyncClient": Any}, include_extras=True)
    hints |= get_type_hints(Common, include_extras=True)
    parameters = [
        each.replace(kind=each.POSITIONAL_OR_KEYWORD, annotation=hints[each.name])
        for of in (prepare, Common)
        for each in inspect.signature(of).parameters.values()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = prepare.__name__, prepare.__doc__
    return run


def failing_with_exit_code(
    action: Callable[[], object], *, debug: bool, name: str | None = None
) -> None:
    """Run `action`, of the command `name`; tell an error in a line and leave with its exit code."""
    # What goes wrong is told once, by us; the libraries' warnings are for --debug.
    logging.basicConfig(handlers=None if debug else [logging.NullHandler()])
    try:
        action()
    except (BrokenPipeError, typer.Exit):
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(report(error, debug=debug, command=name)) from None


async def open_visibly(client: AsyncClient) -> None:
    """Open a client, on a terminal with a sign of life while the model loads."""
    opening = asyncio.ensure_future(client.open())
    try:
        if sys.stderr.isatty():
            # In a thread: importing rich takes time, and the processes are starting meanwhile.
            rich_status = await asyncio.to_thread(import_module, "rich.status")
            rich_console = await asyncio.to_thread(import_module, "rich.console")
            with rich_status.Status("Loading the model", console=rich_console.Console(stderr=True)):
                await opening
        await opening
    finally:
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])


def _client(common: Common) -> AsyncClient:
    """Make the client, which checks the settings and starts nothing."""
    from dspex.client import AsyncClient

    return AsyncClient(common.settings())


async def _run(work: Work, client: AsyncClient, common: Common) -> Output:
    if client.settings.model == "embedded" and sys.stderr.isatty() and not common.as_json:
        typer.echo(NOTICE, err=True)
    try:
        await open_visibly(client)
        return await work(client)
    finally:
        await client.close()


def _show(output: Output, common: Common) -> None:
    if common.as_json:
        typer.echo(json.dumps(output.data, ensure_ascii=False, default=str))
    else:
        typer.echo("\n".join(output.lines))
