"""The picture of a training run: what its log says, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_run"]

_PANELS = (
    ("loss", {"loss": "training", "validation_loss": "held out"}),
    ("accuracy", {"accuracy": "training", "validation_accuracy": "held out"}),
    (
        "mask entries that change",
        {"flip_rate": "at a refresh", "flip_rate_forced": "of these forced by a full column"},
    ),
    ("share of magnitude kept", {"kept_magnitude": "by the mask"}),
)


def draw_run(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw one panel for each kind of number that the rows contain.

    Args:
        rows: of a log, one per epoch.
        path: what to write; the suffix chooses the format.

    Raises:
        ValueError: no rows.
    """
    panels = [
        partial(_draw, rows=rows, title=title, names=names)
        for title, names in _PANELS
        if any(_points(rows, name) for name in names)
    ]
    if not panels:
        raise ValueError("nothing to draw: the log has no rows with a loss")
    return save_figure(path, (4.0 * len(panels), 3.2), panels)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name) is not None]


def _draw(axes: Axes, *, rows: Sequence[Mapping[str, Any]], title: str, names: Mapping[str, str]) -> None:
    """One panel."""
    for (name, label), colour in zip(names.items(), (ACCENT, INK), strict=False):
        points = _points(rows, name)
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=".")
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize=9)
    axes.grid(color=PALE)
    axes.legend(fontsize=7)
