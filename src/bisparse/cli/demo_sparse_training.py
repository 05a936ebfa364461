"""``bisparse demo --topic sparse-training``: networks that are sparse from the first step on, against dense ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from bisparse.cli.show import show_report
from bisparse.report import counted

if TYPE_CHECKING:
    from bisparse.demo.sparse_training_outputs import SparseTrainingFiles
    from bisparse.demo.sparse_training_report import SparseTrainingReport

__all__ = ["show_sparse_training"]

WORDS = """
[bold]What you see.[/] dense: all weights. static: a few at random, never changed. set: after every epoch the \
weights nearest to zero are given up, and as many new ones tried at random places. rigl: new ones come where \
the gradient is largest. All start from the same weights and see the same batches; accuracies are means over \
{networks} of each kind on {examples} test images, one of which is {point:.2f} points: smaller differences mean little.
[bold]What you do not see.[/] Speed: masks on dense tensors save no time. Layers that store and multiply nothing \
but their connections are bs.nn.SparseLinear and the recipe digits-sparse-mlp."""


def show_sparse_training(output: Path, *, quick: bool, seed: int, as_json: bool) -> None:
    """Run the demo, write its files and print what came out.

    Raises:
        typer.Exit: matplotlib or scikit-learn is missing, or the folder cannot be written; code 2.
    """
    from bisparse.demo.sparse_training import SparseTrainingSettings, run_sparse_training
    from bisparse.demo.sparse_training_outputs import write_sparse_training

    notes = Console(stderr=True, soft_wrap=True)
    settings = SparseTrainingSettings.quick(seed) if quick else SparseTrainingSettings(seed=seed)
    try:
        with notes.status("starting") as status:
            report = run_sparse_training(settings, progress=status.update)
            files = write_sparse_training(report, output)
    except (ImportError, OSError) as error:
        notes.print(f"bisparse demo: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        show_report(report, as_json=True)
        return
    _show(Console(), report, files)


def _show(console: Console, report: SparseTrainingReport, files: SparseTrainingFiles) -> None:
    show_report(report, as_json=False)
    words = WORDS.format(
        networks=counted(report.runs, "network", "networks"),
        examples=report.test_examples,
        point=100 / report.test_examples,
    )
    console.print(words, highlight=False)
    console.print(f"\n[bold]Look at[/]  {files.picture}", highlight=False)
    console.print(
        f"\n[bold]Next[/]\n  bisparse inspect {files.sparse}\n"
        "  bisparse train digits-mlp-rigl -o runs/digits-rigl\n"
        "  bisparse train digits-mlp-set -s topology.grow=gradient -o runs/digits-mixed",
        highlight=False,
        soft_wrap=True,
    )
