"""``bisparse demo``: exact masks with their proofs, on real digits, offline."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bisparse.report import counted

if TYPE_CHECKING:
    from bisparse.demo import DemoReport, DemoRow
    from bisparse.demo.outputs import DemoFiles

__all__ = ["demo"]

NOTHING = 1e-12  # float64 rounding of a sum of scores, no gap
HEADINGS = (
    "weights\nkept",
    "|w|\nkept",
    "below\nbest",
    "proven\ngap",
    "acc.\npruned",
    "acc.\ntuned",
    "time\nms",
)
ACCURACY = """
Dense accuracy: {report.dense_accuracy:.1%}, and {report.dense_tuned_accuracy:.1%} after the same fine-tuning.
Accuracies are means over {networks} and {report.test_examples} test images; one image is {point:.2f} \
points, so that smaller differences between lines mean little."""
PROOF = """
[bold]What is proven.[/] Gap 0: no other mask of that pattern keeps more magnitude. The proof is one number \
for every line of every tile (dual potentials), checked again by code that shares nothing with the solver. \
It also measures the other methods: the column "below best" is their true distance, not an estimate.
[bold]What is not.[/] That more magnitude means more accuracy: that is common experience, not a theorem. \
2:4 keeps more than 2:4t because it binds rows only; its transpose is not 2:4, so the backward pass stays \
dense."""


class Topic(str, Enum):
    """What the demo is about."""

    MASKS = "masks"
    SPARSE_TRAINING = "sparse-training"


def demo(
    topic: Annotated[Topic, typer.Option(help="What it is about.")] = Topic.MASKS,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures and files.")] = Path(
        "bisparse-demo"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="One small network: a few seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Of data division, weights and training order.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, nothing else.")] = False,
) -> None:
    """Train a small network on handwritten digits, prune it exactly, and see the proof. Offline.

    Compares the exact solver with every approximation at 2:4, 2:4t and 4:8t: accuracy after pruning and after
    a brief fine-tuning with the mask fixed, kept magnitude, distance from the proven optimum, time. Writes
    two pictures, the numbers and two checkpoints to try the other commands on.

    --topic sparse-training: networks with a tenth of the weights from the first step on, whose connections
    evolve (SET, RigL), against dense ones; with a picture of where the connections go.
    """
    if topic is Topic.SPARSE_TRAINING:
        from bisparse.cli.demo_sparse_training import show_sparse_training

        show_sparse_training(output, quick=quick, seed=seed, as_json=as_json)
        return
    from bisparse.demo import DemoSettings, run_demo
    from bisparse.demo.outputs import write_outputs

    notes = Console(stderr=True, soft_wrap=True)
    settings = DemoSettings.quick(seed) if quick else DemoSettings(seed=seed)
    try:
        with notes.status("starting") as status:
            report = run_demo(settings, progress=status.update)
            status.update("drawing")
            files = write_outputs(report, output)
    except (ImportError, OSError) as error:
        notes.print(f"bisparse demo: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
        return
    _show(Console(), report, files)


def _show(console: Console, report: DemoReport, files: DemoFiles) -> None:
    """The table, what it proves, the files, what to do next."""
    console.print(_table(report))
    console.print(
        ACCURACY.format(
            report=report,
            networks=counted(report.runs, "network", "networks"),
            point=100 / report.test_examples,
        ),
        highlight=False,
    )
    console.print(PROOF, highlight=False)
    console.print(f"\n[bold]Look at[/]  {files.masks}\n         {files.comparison}", highlight=False)
    console.print(_next_steps(files), highlight=False, soft_wrap=True)


def _table(report: DemoReport) -> Table:
    """One line for every pattern and method."""
    table = Table(
        title=f"{report.hidden_weights} hidden weights of a digits network, pruned by magnitude, one thread",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("\npattern", no_wrap=True)
    table.add_column("\nmethod", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for row in report.rows:
        if previous not in ("", row.pattern):
            table.add_section()
        table.add_row(*_cells(row, previous), style="bold" if row.method == "exact" else "")
        previous = row.pattern
    return table


def _cells(row: DemoRow, previous: str) -> tuple[str, ...]:
    """A line's texts; the pattern is written once per group."""
    from bisparse.report import plain_number

    return (
        "" if row.pattern == previous else row.pattern,
        row.method,
        f"{row.density:.1%}",
        f"{row.kept:.2%}",
        f"{max(row.below_optimum, 0.0):.2%}",
        "none" if row.proof is None else "0" if row.proof <= NOTHING else f"{row.proof:.1g}",
        f"{row.accuracy_pruned:.1%}",
        f"{row.accuracy_tuned:.1%}",
        plain_number(1e3 * row.seconds, 2),
    )


def _next_steps(files: DemoFiles) -> str:
    """Commands that work right away, on the files that the demo wrote."""
    again = files.sparse.with_name("again.safetensors")
    return (
        "\n[bold]Next[/]\n"
        f"  bisparse inspect {files.sparse} --pattern 4:8t\n"
        f"  bisparse prune {files.dense} -o {again} --pattern 2:4t\n"
        "  bisparse bench masks --quick\n"
        '  python -c "import bisparse as bs, torch; '
        "print(bs.solve_mask(torch.rand(8, 8), '4:8t').mask.int())\""
    )
