"""The benchmark of packed products: rows to results/kernels.json, tables into docs/kernels.md.

Run from the repository root with ``python benchmarks/kernels.py``; ``--tables`` only rewrites the tables. Rows
that this machine has measured are not measured again: delete the file to start over.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.kernel_tables import kernel_tables
from bisparse.bench.kernels import full_grid, open_ledger, run_kernels

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure what is missing, then print and write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    console = Console()
    ledger = open_ledger(ROOT / "benchmarks" / "results" / "kernels.json")
    rows = ledger.rows if options.tables else run_kernels(full_grid(), ledger, progress=console.print)
    tables = kernel_tables(rows)
    for name, table in tables.items():
        console.print(f"\n{name}\n{table}", markup=False)
    fill_tables([ROOT / "docs" / "kernels.md"], tables)


if __name__ == "__main__":
    main()
