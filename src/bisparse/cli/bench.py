"""``bisparse bench``: measure this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bisparse.cli.bench_products import inference, training

if TYPE_CHECKING:
    from bisparse.bench import Row

__all__ = ["bench", "masks", "show_masks"]

UNITS = "passes: of torch.abs(w, out=buffer) over the same scores; gap: proven, 0 = no mask keeps more"
CASE = ("size", "data", "dtype", "start", "threads")

bench = typer.Typer(
    name="bench", help="Measure this machine: times, ratios and proofs.", no_args_is_help=True
)


bench.command("inference")(inference)
bench.command("training")(training)


@bench.callback()
def _subjects() -> None:
    """Measure this machine: times, ratios and proofs."""


@bench.command()
def masks(
    quick: Annotated[bool, typer.Option("--quick", help="512 x 512: well under a minute.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Everything docs/benchmarks.md reports: minutes.")
    ] = False,
    size: Annotated[list[int], typer.Option("--size", "-s", help="Rows and columns.", min=1)] = [2048],  # noqa: B006
    pattern: Annotated[list[str], typer.Option("--pattern", "-p", help="2:4t, 4:8, ...")] = [  # noqa: B006
        "2:4t",
        "4:8t",
        "8:16t",
        "16:32t",
    ],
    method: Annotated[
        list[str],
        typer.Option(
            "--method", "-m", help="exact, greedy, two_approx, entropic, flow; baselines: topk, product90."
        ),
    ] = ["exact", "greedy", "two_approx"],  # noqa: B006
    data: Annotated[
        list[str], typer.Option("--data", "-d", help="gaussian, student, zeros80, zeros95, real.")
    ] = ["gaussian"],  # noqa: B006
    dtype: Annotated[list[str], typer.Option(help="float32, bfloat16, float16, float64.")] = ["float32"],  # noqa: B006
    start: Annotated[
        list[str], typer.Option(help="'cold', or 'warm 0.001': from the duals before so much noise.")
    ] = ["cold"],  # noqa: B006
    threads: Annotated[list[int], typer.Option("--threads", "-t", help="Default: all cores.", min=1)] = [],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Samples per case; the median counts.", min=1)] = 7,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for masks.json (resumed) and plots.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON, nothing else.")] = False,
) -> None:
    """Time mask solvers against one pass over the memory, interleaved, with proven gaps.

    Options that take a list may be repeated: `--size 1024 --size 4096 -p 4:8t -m exact -m entropic`.
    """
    from bisparse.bench.mask_cases import custom_grid, full_grid, quick_grid
    from bisparse.bench.masks import open_ledger, run_masks

    cores = threads or [_cores()]
    notes = Console(stderr=True, soft_wrap=True)
    try:
        if full:
            grid = full_grid()
        elif quick:
            grid = quick_grid(cores[0])
        else:
            grid = custom_grid(
                methods=method,
                patterns=pattern,
                sizes=size,
                data=data,
                dtypes=dtype,
                starts=start,
                threads=cores,
            )
        ledger = open_ledger(output / "masks.json" if output is not None else None)
        with notes.status("starting") as status:
            rows = run_masks(grid, ledger, repeats=repeats, progress=status.update)
    except ValueError as error:
        notes.print(f"bisparse bench masks: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        show_masks(rows, Console())
    if output is not None:
        _draw(rows, output, notes)


def show_masks(rows: Sequence[Row], console: Console) -> None:
    """Print the ratio table, and the design's targets where rows that decide them are there."""
    from bisparse.bench.mask_targets import judge
    from bisparse.report import plain_number

    console.print(_ratio_table(rows))
    console.print(UNITS, highlight=False)
    verdicts = [verdict for verdict in judge(rows) if verdict.measured is not None]
    if not verdicts:
        return
    table = Table(title="Targets", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("what", "target", "stretch", "measured", "outcome"):
        table.add_column(heading, justify="left" if heading in ("what", "outcome") else "right")
    for verdict in verdicts:
        colour = {"stretch": "green", "met": "green"}.get(verdict.outcome, "red")
        table.add_row(
            verdict.what,
            f"{verdict.target:g}",
            f"{verdict.stretch:g}",
            plain_number(verdict.measured or 0.0),
            f"[{colour}]{verdict.outcome}[/]",
        )
    console.print(table)


def _ratio_table(rows: Sequence[Row]) -> Table:
    """One line per row: where it differs from other rows, the time in three units, the proof."""
    from bisparse.report import plain_number

    varying = [name for name in CASE if len({row[name] for row in rows}) > 1]
    common = ", ".join(f"{name} {rows[0][name]}" for name in CASE if rows and name not in varying)
    table = Table(
        title=f"{rows[0]['machine']}\n{common}" if rows else "No rows",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("pattern", no_wrap=True)
    table.add_column("method", no_wrap=True)
    if varying:
        table.add_column(", ".join(varying))
    for heading in ("ms", "passes", "ns/weight", "gap", "rounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        scaled = "*" if row["extrapolated_from"] else ""
        table.add_row(
            str(row["pattern"]),
            str(row["method"]),
            *([" ".join(str(row[name]) for name in varying)] if varying else []),
            plain_number(1e3 * _number(row, "seconds")) + scaled,
            plain_number(_number(row, "passes")),
            plain_number(_number(row, "ns_per_weight")),
            f"{_number(row, 'gap'):.1g}",
            str(row["rounds"]),
            style="bold" if row["method"] == "exact" else "",
        )
    if any(row["extrapolated_from"] for row in rows):
        table.caption = "* scaled up from a corner"
    return table


def _number(row: Row, column: str) -> float:
    """A measured column as a number."""
    value = row[column]
    return float(value) if value is not None else float("nan")


def _draw(rows: Sequence[Row], folder: Path, notes: Console) -> None:
    """The plots, where matplotlib is installed."""
    from bisparse.bench.mask_plots import draw_cost, draw_methods

    try:
        pictures = [
            draw_cost(rows, folder / "masks_cost.png"),
            draw_methods(rows, folder / "masks_methods.png"),
        ]
    except ImportError:
        notes.print("no plots: pip install 'bisparse[plot]'", markup=False)
        return
    for picture in pictures:
        notes.print(str(picture), markup=False)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
