"""Truly sparse layers and networks: rows to results/truly_sparse*.json, tables and a picture into docs/.

Run from the repository root with ``python benchmarks/truly_sparse.py``: first the steps of single layers, against
dense, masked dense, PyTorch's CSR and SciPy (``--layers``), then whole training runs, next to static and dense ones
(``--runs``). ``--only target`` or ``--only colon`` measures one study or task, ``--limit`` so many groups or runs,
``--tables`` nothing. What is there is not measured again; a run that was stopped goes on. Data come from the folder
that the environment variable BISPARSE_DATA names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.ledger import Ledger
from bisparse.bench.truly_sparse import measure_group, run_case
from bisparse.bench.truly_sparse_cases import (
    KINDS,
    LAYER_KEY,
    RUN_KEY,
    STUDIES,
    TASKS,
    layer_groups,
    run_cases,
)
from bisparse.bench.truly_sparse_plots import draw_layers
from bisparse.bench.truly_sparse_tables import truly_sparse_tables
from bisparse.machine import busy_note

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def measure_layers(ledger: Ledger, console: Console, options: argparse.Namespace) -> None:
    """Groups of layers of which a row is missing."""
    groups = [g for study in STUDIES if options.only in (None, study) for g in layer_groups(study)]
    missing = [group for group in groups if any(case.row() not in ledger for case in group)]
    for number, group in enumerate(missing[: options.limit], 1):
        first = group[0]
        size = f"{first.rows} x {first.columns}, {first.connections:,} weights, batch {first.batch}"
        console.print(f"{number} of {len(missing)}: {first.study}, {size}", highlight=False)
        for row in measure_group(group, threads=options.threads):
            ledger.append(row)
            seconds, grown = float(row["seconds"] or 0.0), float(row["grown_bytes"] or 0.0)
            console.print(f"  {row['contender']}: {1e3 * seconds:.2f} ms, {grown / 2**20:.0f} MiB")


def measure_runs(ledger: Ledger, console: Console, options: argparse.Namespace) -> None:
    """Training runs that are missing."""
    tasks = [task for task in TASKS if options.only in (None, task)]
    cases = [case for task in tasks for case in run_cases(task, options.epochs, options.seeds)]
    missing = [case for case in cases if case.row() not in ledger and options.kind in (None, case.kind)]
    for number, case in enumerate(missing[: options.limit], 1):
        console.print(f"{number} of {len(missing)}: {case.name}", highlight=False)
        row = run_case(case, RESULTS / "truly-sparse-runs", threads=options.threads)
        ledger.append(row)
        console.print(f"  accuracy {row['test_accuracy']}, {row['weights']} weights, {row['seconds']} s")


def main() -> None:
    """Measure what is missing, then write the tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", action="store_true", help="only steps of single layers")
    parser.add_argument("--runs", action="store_true", help="only training runs")
    parser.add_argument("--only", choices=[*STUDIES, *TASKS], help="one study or task")
    parser.add_argument("--kind", choices=KINDS, help="one kind of training runs")
    parser.add_argument("--epochs", type=int, help="of training runs; default: those of the task")
    parser.add_argument("--seeds", type=int, help="of training runs; default: those of the task")
    parser.add_argument("--limit", type=int, default=10**6, help="at most so many groups or runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--tables", action="store_true", help="only rewrite tables and pictures")
    options = parser.parse_args()
    console = Console()
    layers = Ledger(options.results / "truly_sparse.json", LAYER_KEY)
    runs = Ledger(options.results / "truly_sparse_runs.json", RUN_KEY)
    if note := busy_note():
        console.print(note)
    if not options.tables and not options.runs and options.only not in TASKS:
        measure_layers(layers, console, options)
    if not options.tables and not options.layers and options.only not in STUDIES:
        measure_runs(runs, console, options)
    if options.results == RESULTS:
        fill_tables([ROOT / "docs" / "sparse_layers.md"], truly_sparse_tables(layers.rows, runs.rows))
        draw_layers(layers.rows, ROOT / "docs" / "images" / "truly_sparse.png")


if __name__ == "__main__":
    main()
