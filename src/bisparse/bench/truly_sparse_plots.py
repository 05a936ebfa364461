"""Where a truly sparse layer is faster than a dense one, and that its cost follows its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.bench.ledger import Row
from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_layers"]

_COLOURS = {
    "bisparse": INK,
    "torch CSR": "#c8452d",
    "SciPy": "#5b9c6a",
    "masked dense": "#999999",
    "dense": "#000000",
}


def draw_layers(rows: Sequence[Row], path: Path) -> Path | None:
    """One panel per size: time of a step over density; then time and memory over the number of weights.

    Returns:
        The path, or ``None`` where there is nothing to draw.
    """
    sizes = sorted({int(row["rows"] or 0) for row in rows if row["study"] == "sizes"})
    if not sizes:
        return None
    panels = [partial(_draw_size, rows=rows, size=size) for size in sizes]
    title = f"One training step of a layer\n{rows[0]['machine']}"
    last = [partial(_draw_cost, rows=rows)]
    return save_figure(path, (3.6 * (len(sizes) + 1), 3.6), [*panels, *last], title=title)


def _points(rows: Sequence[Row], contender: str, x: str, y: str) -> list[tuple[float, float]]:
    return sorted((float(r[x] or 0.0), float(r[y] or 0.0)) for r in rows if r["contender"] == contender)


def _draw_size(axes: Axes, *, rows: Sequence[Row], size: int) -> None:
    here = [row for row in rows if row["study"] == "sizes" and row["rows"] == size]
    for name, colour in _COLOURS.items():
        points = [
            (100.0 * density, 1e3 * seconds) for density, seconds in _points(here, name, "density", "seconds")
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("weights that exist, %")
    axes.set_ylabel("step, ms")
    axes.set_title(f"{size:,} x {size:,}, batch 32", fontsize=9)
    axes.grid(color=PALE)
    axes.legend(fontsize=6)


def _draw_cost(axes: Axes, *, rows: Sequence[Row]) -> None:
    """Seconds for each example, over the weights; a straight line of slope 1 is a cost linear in them."""
    marks = {32: ("o", INK), 4: ("s", ACCENT), 128: ("^", "#c8452d")}
    for batch, (mark, colour) in marks.items():
        here = [row for row in rows if row["contender"] == "bisparse" and row["batch"] == batch]
        points = [(float(r["connections"] or 0), 1e6 * float(r["seconds"] or 0) / batch) for r in here]
        if points:
            weights, times = zip(*points, strict=True)
            axes.scatter(weights, times, color=colour, marker=mark, s=14, label=f"batch {batch}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("weights that exist")
    axes.set_ylabel("step, us for each example")
    axes.set_title("bisparse, 1000 to 1 000 000 neurons", fontsize=9)
    axes.grid(color=PALE)
    axes.legend(fontsize=6)
