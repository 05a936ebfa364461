"""Accuracy after filters are removed: rows to results/filters.json, tables and a picture into the documents.

Run from the repository root with ``python benchmarks/filters.py``; ``--retrain`` runs the rows with retraining,
``--latency`` times calls before and after (on a quiet machine, rows to results/filters_latency.json), ``--only
resnet20`` one network, ``--tables`` only rewrites tables and picture. Rows that are there are not measured again;
retraining that was stopped goes on. Data come from the folder that BISPARSE_DATA names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.filters import FilterBench
from bisparse.bench.filters_cases import KEY, MODELS, cases
from bisparse.bench.filters_latency import KEY as LATENCY_KEY
from bisparse.bench.filters_latency import LatencyCase, latency_cases, latency_row, latency_table
from bisparse.bench.filters_subjects import filter_subject
from bisparse.bench.filters_tables import draw_filters, filter_tables
from bisparse.bench.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "results" / "train-runs" / "filters"


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MODELS, help="one network")
    parser.add_argument("--retrain", action="store_true", help="the rows with retraining")
    parser.add_argument("--latency", action="store_true", help="the time of calls, instead of accuracy")
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many rows")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: as it likes")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    ledger = Ledger(ROOT / "benchmarks" / "results" / "filters.json", KEY)
    latency = Ledger(ROOT / "benchmarks" / "results" / "filters_latency.json", LATENCY_KEY)
    RUNS.mkdir(parents=True, exist_ok=True)
    if not options.tables:
        measure(latency if options.latency else ledger, options)
    tables = filter_tables(ledger.rows) | {"filters_latency": latency_table(latency.rows)}
    fill_tables([ROOT / "README.md", ROOT / "docs" / "filters.md"], tables)
    draw_filters(ledger.rows, ROOT / "docs" / "images" / "filters.png")


def measure(ledger: Ledger, options: argparse.Namespace) -> None:
    """Append the rows that are missing: accuracies, or times at as many threads as PyTorch has."""
    console, benches = Console(), dict[str, FilterBench]()
    wanted = latency_cases(torch.get_num_threads()) if options.latency else cases(retrained=options.retrain)
    missing = [c for c in wanted if c.row() not in ledger and options.only in (None, c.model)]
    for case in missing[: options.limit]:
        if case.model not in benches:
            benches[case.model] = FilterBench(filter_subject(case.model, RUNS), RUNS)
        bench = benches[case.model]
        row = latency_row(case, bench.subject) if isinstance(case, LatencyCase) else bench.run(case)
        ledger.append(row)
        measured = (
            f"{name} {row[name]}" for name in ("accuracy", "seconds", "before_ms", "after_ms") if name in row
        )
        console.print(*case.row().values(), *measured)


if __name__ == "__main__":
    main()
