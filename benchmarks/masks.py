"""The full mask benchmark: rows to results/masks.json, pictures to docs/images, tables into the docs.

Run from the repository root with ``make bench`` or ``python benchmarks/masks.py``. Rows that this machine has
measured are not measured again: delete the file to start over. Real weights come from the folder that the
environment variable BISPARSE_DATA names.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from bisparse.bench.documents import fill_tables
from bisparse.bench.mask_cases import full_grid
from bisparse.bench.mask_plots import draw_cost, draw_methods
from bisparse.bench.mask_tables import mask_tables
from bisparse.bench.masks import open_ledger, run_masks
from bisparse.cli.bench import show_masks

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure what is missing, then print and write everything."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    console = Console()
    ledger = open_ledger(ROOT / "benchmarks" / "results" / "masks.json")
    rows = run_masks(full_grid(), ledger, seconds=20.0, progress=console.print)
    show_masks(rows, console)
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    draw_cost(rows, images / "masks_cost.png")
    draw_methods(rows, images / "masks_methods.png")
    tables = {
        **mask_tables(rows),
        "masks_cost_picture": "![Cost against size and block](images/masks_cost.png)\n",
        "masks_methods_picture": "![Time against proven gap](images/masks_methods.png)\n",
    }
    fill_tables([ROOT / "README.md", ROOT / "docs" / "benchmarks.md"], tables)


if __name__ == "__main__":
    main()
