"""The README's first result: run the demo, write its table into the README and its pictures to docs/images.

Run from the repository root: ``python benchmarks/demo.py``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bisparse.bench.documents import fill_tables, markdown_table
from bisparse.demo import DemoReport, DemoSettings, run_demo
from bisparse.demo.outputs import write_outputs
from bisparse.report import plain_number

ROOT = Path(__file__).resolve().parent.parent
HEAD = ("pattern", "method", "weights", "magnitude", "below the optimum", "pruned", "fine-tuned", "ms")


def table(report: DemoReport) -> str:
    """One line for every pattern and method."""
    lines = [
        [
            row.pattern,
            row.method,
            f"{row.density:.1%}",
            f"{row.kept:.2%}",
            "**0, proven**" if row.proof is not None else f"{max(row.below_optimum, 0.0):.2%}",
            f"{row.accuracy_pruned:.1%}",
            f"{row.accuracy_tuned:.1%}",
            plain_number(1e3 * row.seconds, 2),
        ]
        for row in report.rows
    ]
    note = (
        "\nShares of weights and of magnitude that are kept; accuracy of the pruned and fine-tuned network. "
        f"{report.hidden_weights} hidden weights, means of {report.runs} networks, one thread. Dense: "
        f"{report.dense_accuracy:.1%}, and {report.dense_tuned_accuracy:.1%} after the same fine-tuning.\n"
    )
    return markdown_table(HEAD, lines) + note


def main() -> None:
    """Run, draw, fill."""
    report = run_demo(DemoSettings(), progress=print)
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        files = write_outputs(report, Path(folder))
        shutil.copy(files.masks, images / "demo_masks.png")
        shutil.copy(files.comparison, images / "demo_comparison.png")
    fill_tables([ROOT / "README.md"], {"demo": table(report)})


if __name__ == "__main__":
    main()
