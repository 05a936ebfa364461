"""Accuracy after pruning pretrained networks: rows to results/compress.json, tables into the documents.

Run from the repository root with ``python benchmarks/compress.py``; ``--only resnet20`` measures one model,
``--tables`` only rewrites the tables, ``--time`` only times the default recipe. Rows that are there are not measured
again. Data come from the folder that the environment variable BISPARSE_DATA names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bisparse.bench.compress import SUBJECTS, Subject, run_case
from bisparse.bench.compress_cases import KEY, Case, cases
from bisparse.bench.compress_tables import compress_tables
from bisparse.bench.documents import fill_tables
from bisparse.bench.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SUBJECTS), help="measure one model")
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many rows")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    parser.add_argument(
        "--time", action="store_true", help="only time the default recipe on ResNet-20 at 4:8t"
    )
    options = parser.parse_args()
    if options.time:
        time_default(Console())
        return
    ledger = Ledger(ROOT / "benchmarks" / "results" / "compress.json", KEY)
    console, subjects = Console(), dict[str, Subject]()
    missing = [c for c in cases() if c.row() not in ledger and options.only in (None, c.model)]
    for case in [] if options.tables else missing[: options.limit]:
        ledger.refresh()  # another process may be filling the same file
        if case.row() in ledger:
            continue
        if case.model not in subjects:
            subjects[case.model] = SUBJECTS[case.model]()
        row = run_case(case, subjects[case.model])
        ledger.append(row)
        console.print(" ".join(map(str, case.row().values())), row["measure"], f"{row['seconds']} s")
    fill_tables([ROOT / "README.md", ROOT / "docs" / "compress.md"], compress_tables(ledger.rows))


def time_default(console: Console) -> None:
    """Seconds of the default recipe, once, by the clock: meant for a machine with nothing else to do."""
    row = run_case(Case("resnet20", "4:8t"), SUBJECTS["resnet20"]())
    console.print(
        f"{row['seconds']} s, {row['cpu_seconds']} s of all cores together; accuracy {row['measure']}"
    )


if __name__ == "__main__":
    main()
