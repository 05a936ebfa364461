"""Accuracy of sparse training: rows to results/train.json, tables into the documents.

Run from the repository root with ``python benchmarks/train.py``; ``--only resnet`` measures one study, ``--seeds 5``
more seeds, ``--tables`` only rewrites the tables. Rows that are there are not measured again, and a run that was
stopped goes on where its last checkpoint is. Data come from the folder that the environment variable BISPARSE_DATA
names.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.ledger import Ledger
from bisparse.bench.train import run_case
from bisparse.bench.train_cases import KEY, STUDIES, cases
from bisparse.bench.train_tables import train_tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=list(STUDIES), action="append", help="measure this study; repeatable"
    )
    parser.add_argument(
        "--seeds", type=int, help="paired seeds; default: 5 for resnet, 1 for refresh, else 3"
    )
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many rows")
    parser.add_argument("--threads", type=int, help="of the processor; default: all cores")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    ledger, console = Ledger(RESULTS / "train.json", KEY), Console()
    wanted = itertools.chain.from_iterable(cases(study, options.seeds) for study in options.only or STUDIES)
    missing = [case for case in wanted if case.row() not in ledger]
    for number, case in enumerate([] if options.tables else missing[: options.limit], 1):
        console.print(f"{number} of {len(missing)}: {case.name}", highlight=False)
        row = run_case(case, RESULTS / "train-runs")
        ledger.append(row)
        console.print(f"  accuracy {row['test_accuracy']}, loss {row['test_loss']}, {row['seconds']} s")
    fill_tables([ROOT / "README.md", ROOT / "docs" / "train-results.md"], train_tables(ledger.rows))


if __name__ == "__main__":
    main()
