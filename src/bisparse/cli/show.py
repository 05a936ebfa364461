"""Results on the terminal: a table that fits its width, everything in a pipe, or JSON."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bisparse.report import Report

__all__ = ["show_report"]

_LONG = 24


def show_report(report: Report, *, as_json: bool, every: bool = False) -> None:
    """Print a result on stdout.

    Args:
        report: what to show.
        as_json: as JSON instead of a table.
        every: a line for every row; otherwise rows that differ only by their layer number are joined in a
            long table.
    """
    from bisparse.report import render, to_json

    if as_json:
        typer.echo(to_json(report))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    title, heading, *lines = render(report.to_table(), width, limit=None if every else _LONG)
    typer.echo(title)
    typer.secho(heading, bold=True)
    typer.echo("\n".join(lines))
