"""``bisparse inspect``: what a checkpoint holds, and which patterns it obeys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.progress import byte_bar
from bisparse.cli.prune import complete_pattern
from bisparse.cli.show import show_report

__all__ = ["inspect"]


def inspect(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help=".safetensors, a model's folder, or .pt/.pth/.th/.bin.")
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            "-p",
            metavar="N:M",
            help="Hold every weight against it: 2:4, 4:8t, unstructured:0.9.",
            autocompletion=complete_pattern,
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--layout",
            "-l",
            metavar="KIND",
            help="How to read what nobody can tell: 'h.*.c_attn=transposed'. Repeatable.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PNG", help="Draw densities and one mask (also .svg, .pdf)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    every: Annotated[bool, typer.Option("--all", help="A line for every tensor, however many.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Progress bar; default: on a terminal.")
    ] = None,
) -> None:
    """Show what a checkpoint holds: shapes, types, densities, and the N:M patterns that its zeros obey.

    "2:4 in" holds along the inputs (what sparse tensor cores need), "out" for the transposed weight, "4:8t"
    both ways. With a pattern: whether it holds, the groups of M that keep more than N along the inputs and
    outputs, the share of the magnitude that its best mask would keep, and how many masks it allows.

    Try:

    - `bisparse inspect model.safetensors`

    - `bisparse inspect sparse.safetensors -p 4:8t --plot densities.png`

    - `bisparse inspect Llama-3-8B/ --json | jq '.tensors[] | {name, density}'`

    Exit codes: 0 done (whether or not the pattern holds), 2 wrong input or options.
    """
    with clear_failures("inspect"):
        from bisparse.files import inspect_file

        with byte_bar("reading", progress) as show:
            report = inspect_file(source, pattern=pattern, layout=layout or None, progress=show)
        show_report(report, as_json=as_json, every=every)
        if plot is not None:
            from bisparse.files.inspect_plot import plot_inspection

            plot_inspection(report, plot, layout=layout or None)
