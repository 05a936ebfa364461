"""Trained thresholds against the published table: rows to results/dst.json, tables and the curve into the documents.

Run from the repository root with ``python benchmarks/dst.py``; ``--only mnist-lstm-a`` measures one study,
``--seeds 3`` more seeds, ``--tables`` only rewrites the tables. Rows that are there are not measured again, and a run
that was stopped goes on where its last checkpoint is. Data come from the folder that the environment variable
BISPARSE_DATA names.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.dst import run_case
from bisparse.bench.dst_cases import KEY, STUDIES, cases
from bisparse.bench.dst_tables import draw_curve, dst_tables
from bisparse.bench.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=list(STUDIES), action="append", help="measure this study; repeatable"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many rows")
    parser.add_argument("--threads", type=int, help="of the processor; default: all cores")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    ledger, console = Ledger(RESULTS / "dst.json", KEY), Console()
    wanted = itertools.chain.from_iterable(cases(study, options.seeds) for study in options.only or STUDIES)
    missing = [case for case in wanted if case.row() not in ledger]
    for number, case in enumerate([] if options.tables else missing[: options.limit], 1):
        console.print(f"{number} of {len(missing)}: {case.name}", highlight=False)
        row = run_case(case, RESULTS / "dst-runs")
        ledger.append(row)
        console.print(f"  accuracy {row['test_accuracy']}, left {row['remaining']}, {row['seconds']} s")
    fill_tables([ROOT / "docs" / "dst.md"], dst_tables(ledger.rows))
    if any(row["task"] == "mnist-lenet-300-100" for row in ledger.rows):
        draw_curve(ledger.rows, ROOT / "docs" / "images" / "dst_curve.png")


if __name__ == "__main__":
    main()
