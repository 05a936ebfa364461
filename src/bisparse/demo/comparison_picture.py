"""The picture of the comparison: kept magnitude, accuracy and time of every pattern and method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.demo.report import DemoReport, DemoRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparison"]

EXACT, OTHER, FAINT, TUNED = "#1f3a5f", "#8fa8c6", "#d5dbe3", "#5b9c6a"


def draw_comparison(report: DemoReport, path: Path) -> Path:
    """Draw three panels that share their lines, one line for every pattern and method.

    Args:
        report: of the demo.
        path: of the PNG; its folder must exist.

    Returns:
        The path. ``ImportError`` is raised where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    places = _places(report.rows)
    figure = Figure(figsize=(12.5, 1.7 + 0.36 * places[-1]), dpi=150, layout="constrained")
    panels: Any = figure.subplots(1, 3, sharey=True, width_ratios=[1.0, 1.25, 1.0])
    _draw_kept(panels[0], report.rows, places)
    _draw_accuracy(panels[1], report, places)
    _draw_time(panels[2], report.rows, places)
    panels[0].set_yticks(places, [f"{row.pattern}  {row.method}" for row in report.rows])
    panels[0].set_ylim(places[-1] + 0.6, -0.6)
    for label, row in zip(panels[0].get_yticklabels(), report.rows, strict=True):
        label.set_fontweight("bold" if row.method == "exact" else "normal")
    figure.suptitle(
        f"Pruning {report.hidden_weights} hidden weights of a digits network: exact and approximate masks "
        f"(mean of {report.runs})",
        fontsize=13,
    )
    figure.savefig(path)
    return path


def _places(rows: Sequence[DemoRow]) -> list[float]:
    """Heights of the lines, with a space between patterns."""
    places: list[float] = []
    for index, row in enumerate(rows):
        space = 0.0 if index == 0 else 1.0 if row.pattern == rows[index - 1].pattern else 1.7
        places.append((places[-1] if places else 0.0) + space)
    return places


def _tidy(axis: Axes, title: str) -> None:
    """Only what helps reading: a title, light vertical lines."""
    axis.set_title(title, fontsize=11, loc="left")
    axis.grid(axis="x", color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _draw_kept(axis: Axes, rows: Sequence[DemoRow], places: Sequence[float]) -> None:
    """Bars of the kept magnitude, with how far each stays below the proven optimum."""
    colours = [EXACT if row.method == "exact" else OTHER for row in rows]
    axis.barh(places, [100 * row.kept for row in rows], color=colours, height=0.68)
    for row, place in zip(rows, places, strict=True):
        note = "optimum" if row.below_optimum < 1e-7 else f"{row.below_optimum:.2%} below the optimum"
        axis.text(100 * row.kept - 0.4, place, note, va="center", ha="right", fontsize=8, color="white")
    axis.set_xlim(0, 100 * max(row.kept for row in rows) * 1.02)
    _tidy(axis, "kept magnitude, %")


def _draw_accuracy(axis: Axes, report: DemoReport, places: Sequence[float]) -> None:
    """From the accuracy after pruning to the accuracy after fine-tuning."""
    pruned = [100 * row.accuracy_pruned for row in report.rows]
    tuned = [100 * row.accuracy_tuned for row in report.rows]
    axis.hlines(places, pruned, tuned, color=FAINT, linewidth=4)
    axis.scatter(pruned, places, color=OTHER, s=46, zorder=3, label="after pruning")
    axis.scatter(tuned, places, color=TUNED, s=46, zorder=3, label="after fine-tuning, mask fixed")
    dense = 100 * report.dense_accuracy
    error = 100 * math.sqrt(report.dense_accuracy * (1 - report.dense_accuracy) / report.test_examples)
    axis.axvspan(
        dense - error, dense + error, color=FAINT, alpha=0.5, label="± standard error of the test set"
    )
    axis.axvline(dense, color=EXACT, linewidth=1.2, linestyle="--", label="dense")
    axis.set_xlim(min(*pruned, dense - 4) - 0.3, max(*tuned, dense + 1) + 0.3)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize=8.5, frameon=False)
    _tidy(axis, "test accuracy, %")


def _draw_time(axis: Axes, rows: Sequence[DemoRow], places: Sequence[float]) -> None:
    """Time on a logarithmic scale."""
    milliseconds = [1e3 * row.seconds for row in rows]
    colours = [EXACT if row.method == "exact" else OTHER for row in rows]
    start = min(milliseconds) / 2.5
    axis.set_xscale("log")
    axis.hlines(places, [start] * len(rows), milliseconds, color=FAINT, linewidth=2)
    axis.scatter(milliseconds, places, color=colours, s=46, zorder=3)
    for place, value in zip(places, milliseconds, strict=True):
        axis.text(value * 1.3, place, f"{value:.3g} ms", va="center", fontsize=8)
    axis.set_xlim(start, max(milliseconds) * 5)
    _tidy(axis, "time to find the masks, ms (logarithmic)")
