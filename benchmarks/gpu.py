"""Everything that only a GPU can tell, in one command: rows to results/gpu.json, tables into docs/gpu.md.

Run from the repository root with ``python benchmarks/gpu.py`` on a machine with an NVIDIA GPU, with bisparse installed;
less than eight minutes, most of them compilation. ``--only check|masks|linears`` does a part; ``--tables`` only
rewrites the tables. What this machine has measured is not measured again: delete the file to start over.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.gpu import KEY, PATTERNS, check_solver, gpu_machine, run_linears, run_solver
from bisparse.bench.gpu_tables import gpu_tables
from bisparse.bench.ledger import Ledger
from bisparse.masks.solve import solve_mask

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Check, measure what is missing, print and write; 2 without a GPU, 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["check", "masks", "linears"])
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    console = Console()
    ledger = Ledger(ROOT / "benchmarks" / "results" / "gpu.json", KEY)
    failures = 0
    if not options.tables:
        try:
            machine = gpu_machine()
        except RuntimeError as error:
            console.print(f"error: {error}", style="red", markup=False)
            return 2
        failures = measure(options.only, ledger, machine, console)
    tables = gpu_tables(ledger.rows)
    fill_tables([ROOT / "docs" / "gpu.md"], tables)
    console.print(*tables.values(), sep="\n", markup=False)
    return 1 if failures else 0


def measure(only: str | None, ledger: Ledger, machine: str, console: Console) -> int:
    """Do the parts that are asked for; returns how many checks failed. Nothing is timed that is wrong."""
    device = torch.device("cuda")
    console.print(machine, markup=False)
    for pattern in PATTERNS:
        begin = time.perf_counter()
        solve_mask(torch.rand(64, 64, device=device), pattern)
        console.print(f"{pattern}: kernels ready after {time.perf_counter() - begin:.1f} s", markup=False)
    failures = list(check_solver(device)) if only in (None, "check", "masks") else []
    for failure in failures:
        console.print(f"WRONG {failure}", style="red", markup=False)
    if not failures and only in (None, "masks"):
        run_solver(ledger, machine, device)
    if only in (None, "linears"):
        run_linears(ledger, machine, device)
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
