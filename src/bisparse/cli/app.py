"""The ``bisparse`` program: one typer application, one module per command.

Command modules import PyTorch inside their functions only, which keeps ``bisparse --help`` fast.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer

from bisparse.cli.bench import bench
from bisparse.cli.demo import demo
from bisparse.cli.filters import filters
from bisparse.cli.inspect import inspect
from bisparse.cli.kernel import kernel
from bisparse.cli.pack import pack, unpack
from bisparse.cli.prune import prune
from bisparse.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="bisparse",
    help="Neural networks that are sparse in both directions: exact N:M and transposable masks, with proof.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    """Print the version and stop, where ``--version`` was given."""
    if not wanted:
        return
    try:
        typer.echo(f"bisparse {version('bisparse')}")
    except PackageNotFoundError:
        typer.echo("bisparse (run from a source tree, not installed)")
    raise typer.Exit


@app.callback()
def _options(
    show_version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    del show_version  # handled by its callback, before any command runs


app.command("prune")(prune)
app.command("inspect")(inspect)
app.command("train")(train)
app.command("pack")(pack)
app.command("unpack")(unpack)
app.command("kernel")(kernel)
app.command("filters")(filters)
app.add_typer(bench, name="bench")
app.command("demo")(demo)


def main() -> None:
    """Run the program; the console script ``bisparse`` calls this."""
    app()
