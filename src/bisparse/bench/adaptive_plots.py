"""Picture of the kernel benchmark: every measure against the accuracy after training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.bench.adaptive_cases import CHOICES, DATA, PATTERNS
from bisparse.bench.adaptive_correlations import MEASURES, mean_rows
from bisparse.bench.ledger import Row
from bisparse.bench.spearman import spearman
from bisparse.plots import PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_measures"]

_SHOWN = ("diversity_paper", "diversity_exact", "kept_magnitude", "alignment", "y_fitted")
_COLOURS = ("#1f3a5f", "#3f6a9c", "#7fa6d0", "#a8482f", "#d98a6a", "#5b9c6a")
_MARKS = {"magnitude": "o", "saliency": "s", "random": "x"}


def draw_measures(rows: Sequence[Row], regime: str, folder: Path) -> list[Path]:
    """One picture per data set, ``kernel_<data>_<regime>.png``; a colour per pattern, a mark per choice.

    Raises:
        ImportError: matplotlib is missing.
    """
    written = []
    for data in DATA:
        group = mean_rows(rows, data, regime)
        if len(group) > 2:
            panels = [partial(_draw, group=group, name=name, legend=name == _SHOWN[0]) for name in _SHOWN]
            title = f"{data}, masks on {regime} weights, half of the hidden weights kept"
            path = folder / f"kernel_{data}_{regime}.png"
            written.append(save_figure(path, (3.1 * len(panels), 3.6), panels, title=title))
    return written


def _draw(axes: Axes, *, group: Sequence[Row], name: str, legend: bool) -> None:
    for row in group:
        colour = _COLOURS[PATTERNS.index(str(row["pattern"]))]
        value, accuracy = float(row[name] or 0), 100 * float(row["accuracy"] or 0)
        axes.scatter(value, accuracy, color=colour, marker=_MARKS[str(row["choice"])], s=34)
    rho = spearman([float(r[name] or 0) for r in group], [float(r["accuracy"] or 0) for r in group])
    axes.set_title(f"{MEASURES[name]}\nrank correlation {rho:+.2f}", fontsize=8)
    axes.set_ylabel("test accuracy after training, %" if legend else "")
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    if legend:
        for pattern, colour in zip(PATTERNS, _COLOURS, strict=True):
            axes.scatter([], [], color=colour, label=pattern)
        for choice in CHOICES:
            axes.scatter([], [], color="grey", marker=_MARKS[choice], label=choice)
        axes.legend(fontsize=6)
