"""Which measure of a mask predicts the accuracy after training? Rows to results/kernel*.json, tables into the page.

Run from the repository root with ``python benchmarks/kernel.py``; ``--limit`` measures so many rows more, ``--tables``
only rewrites tables and pictures. Rows that are there are not measured again. Real data come from the folder that the
environment variable BISPARSE_DATA names. One thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from bisparse.bench.adaptive import run_masked_case, run_pair
from bisparse.bench.adaptive_cases import KEY, PAIR_KEY, PAIRS, masked_cases
from bisparse.bench.adaptive_plots import draw_measures
from bisparse.bench.adaptive_subjects import Subject, load_subject
from bisparse.bench.adaptive_tables import adaptive_tables
from bisparse.bench.documents import fill_tables
from bisparse.bench.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"


def main() -> None:
    """Measure what is missing, then write tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many masks")
    parser.add_argument("--tables", action="store_true", help="only rewrite tables and pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    masked, pairs = Ledger(RESULTS / "kernel.json", KEY), Ledger(RESULTS / "kernel_pairs.json", PAIR_KEY)
    if not options.tables:
        measure_pairs(pairs)
        measure_masks(masked, options.limit)
    draw_measures([row for row in masked.rows if row["data"] == "mnist"], "trained", IMAGES)
    fill_tables([ROOT / "docs" / "kernel.md"], adaptive_tables(masked.rows, pairs.rows))


def measure_pairs(ledger: Ledger) -> None:
    """Two-layer networks on pairs of MNIST's digits."""
    for pair in PAIRS:
        if {"pair": f"{pair[0]} {pair[1]}", "step": 0} in ledger:
            continue
        rows, snapshots = run_pair(pair)
        for row in reversed(rows):  # step 0 last: its presence says that the pair is complete
            ledger.append(row)
        if pair == PAIRS[2]:
            snapshots.plot(IMAGES / "kernel_pair.png")


def measure_masks(ledger: Ledger, limit: int) -> None:
    """Masks, judged and trained."""
    console, subjects, models = Console(), dict[str, Subject](), dict[tuple[str, str, int], nn.Sequential]()
    missing = [case for case in masked_cases() if case.row() not in ledger]
    for case in missing[:limit]:
        if case.data not in subjects:
            subjects[case.data] = load_subject(case.data)
        subject, key = subjects[case.data], (case.data, case.regime, case.seed)
        if key not in models:
            models[key] = subject.network(case.regime, case.seed)
        row = run_masked_case(case, subject, models[key])
        ledger.append(row)
        console.print(*case.row().values(), f"{row['accuracy']:.4f}", f"{row['seconds']} s")


if __name__ == "__main__":
    main()
