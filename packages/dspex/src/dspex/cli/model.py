"""`dspex model`: the embedded model's weights on this machine."""

from __future__ import annotations

import json

import typer

from dspex.cli.failures import ExitCode
from dspex.cli.running import AsJson, Debug, failing_with_exit_code

app = typer.Typer(
    help="Install, show or remove the embedded model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def install(debug: Debug = False) -> None:
    """Fetch the weights of the embedded model: a download of 93 MB, once for each user."""
    from snakepit_grpc_bridge.lm.install import install_embedded

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    failing_with_exit_code(lambda: install_embedded(tell), debug=debug)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the embedded model is installed; exit code 1 if it is not."""
    from snakepit_grpc_bridge.lm.install import EMBEDDED_LABEL, model_status

    found = model_status()
    if as_json:
        data = {"installed": found.installed, "path": str(found.path), "bytes": found.size}
        typer.echo(json.dumps(data))
    elif found.installed:
        typer.echo(f"{EMBEDDED_LABEL}: installed, {found.size / 1e6:.0f} MB, {found.path}")
    else:
        typer.echo(f"{EMBEDDED_LABEL}: not installed; run `dspex model install`")
    raise typer.Exit(ExitCode.OK if found.installed else ExitCode.FAILED)


@app.command()
def remove(debug: Debug = False) -> None:
    """Remove the weights of the embedded model."""
    from snakepit_grpc_bridge.lm.install import remove_embedded

    def work() -> None:
        typer.echo("removed" if remove_embedded() else "there was nothing to remove", err=True)

    failing_with_exit_code(work, debug=debug)


@app.command()
def path() -> None:
    """Print where the weights are, or would be."""
    from snakepit_grpc_bridge.lm.install import embedded_path

    typer.echo(embedded_path())
