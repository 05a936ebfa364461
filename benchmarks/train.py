"""Accuracy of sparse training: rows to results/train.json, tables into the documents.

Run from the repository root with ``python benchmarks/train.py``; ``--only resnet`` measures one study, ``--seeds 5``
more seeds, ``--tables`` only rewrites the tables. Rows that are there are not measured again, and a run that was
stopped goes on where its last checkpoint is. Data come from the folder that the environment variable BISPARSE_DATA
names.
"""

from __future__ import annotations

from pathlib import Path

from bisparse.bench.documents import fill_tables
from bisparse.bench.ledger import Ledger
from bisparse.bench.studies import measure_studies, study_options
from bisparse.bench.train import run_case
from bisparse.bench.train_cases import KEY, STUDIES, cases
from bisparse.bench.train_tables import train_tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Measure what is missing, then write the tables."""
    options = study_options(
        __doc__, STUDIES, seeds=None, seeds_help="paired seeds; default: 5 for resnet, 1 for refresh, else 3"
    )
    ledger = Ledger(RESULTS / "train.json", KEY)
    measure_studies(
        options,
        STUDIES,
        cases,
        run_case,
        ledger,
        RESULTS / "train-runs",
        ("test_accuracy", "test_loss", "seconds"),
    )
    fill_tables([ROOT / "README.md", ROOT / "docs" / "train-results.md"], train_tables(ledger.rows))


if __name__ == "__main__":
    main()
