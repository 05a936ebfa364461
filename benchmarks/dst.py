"""Trained thresholds against the published table: rows to results/dst.json, tables and the curve into the documents.

Run from the repository root with ``python benchmarks/dst.py``; ``--only mnist-lstm-a`` measures one study,
``--seeds 3`` more seeds, ``--tables`` only rewrites the tables. Rows that are there are not measured again, and a run
that was stopped goes on where its last checkpoint is. Data come from the folder that the environment variable
BISPARSE_DATA names.
"""

from __future__ import annotations

from pathlib import Path

from bisparse.bench.documents import fill_tables
from bisparse.bench.dst import run_case
from bisparse.bench.dst_cases import KEY, STUDIES, cases
from bisparse.bench.dst_tables import draw_curve, dst_tables
from bisparse.bench.ledger import Ledger
from bisparse.bench.studies import measure_studies, study_options

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Measure what is missing, then write the tables."""
    options = study_options(__doc__, STUDIES, seeds=1)
    ledger = Ledger(RESULTS / "dst.json", KEY)
    measure_studies(
        options,
        STUDIES,
        cases,
        run_case,
        ledger,
        RESULTS / "dst-runs",
        ("test_accuracy", "remaining", "seconds"),
    )
    fill_tables([ROOT / "docs" / "dst.md"], dst_tables(ledger.rows))
    if any(row["task"] == "mnist-lenet-300-100" for row in ledger.rows):
        draw_curve(ledger.rows, ROOT / "docs" / "images" / "dst_curve.png")


if __name__ == "__main__":
    main()
