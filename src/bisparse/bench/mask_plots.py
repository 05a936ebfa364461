"""Pictures of the mask benchmark: how cost grows with size and with the block, and what the data changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.bench.ledger import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_cost", "draw_methods"]

COLOURS = {"2:4t": "#1f3a5f", "4:8t": "#3f7cac", "8:16t": "#5b9c6a", "16:32t": "#c8452d"}
SIZES = (512, 1024, 2048, 4096, 8192)
BASE = {"method": "exact", "data": "gaussian", "dtype": "float32", "start": "cold", "threads": 2}


def draw_cost(rows: Sequence[Row], path: Path) -> Path:
    """Cost per weight against size, and against the block with the memory pass as unit.

    Raises:
        ImportError: matplotlib is missing; it comes with the extra ``bisparse[plot]``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_size(left, rows)
    _draw_block(right, rows)
    figure.savefig(path)
    return path


def _draw_size(axis: Axes, rows: Sequence[Row]) -> None:
    """Nanoseconds per weight over the side of the matrix: flat lines mean cost linear in the weights."""
    for pattern, colour in COLOURS.items():
        for threads, style in ((2, "-"), (1, ":")):
            points = sorted(_points(rows, {**BASE, "pattern": pattern, "threads": threads}, "ns_per_weight"))
            if points:
                sizes, costs = zip(*points, strict=True)
                label = pattern if threads == 2 else None
                axis.plot(sizes, costs, style, color=colour, marker="o", markersize=4, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(SIZES, [str(size) for size in SIZES])
    axis.set_xlabel("side of the square matrix")
    axis.set_ylabel("ns per weight")
    axis.set_title(
        "Cost grows linearly with the weights\n(solid: 2 threads, dotted: 1 thread)", fontsize=11, loc="left"
    )
    _tidy(axis)


def _draw_block(axis: Axes, rows: Sequence[Row]) -> None:
    """Memory passes over the block, for several kinds of scores, at the largest size that has them."""
    kinds: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("Gaussian", "#1f3a5f", {}),
        ("heavy-tailed", "#8fa8c6", {"data": "student"}),
        ("80% zeros", "#c8452d", {"data": "zeros80"}),
        ("real weights", "#e9a53b", {"data": "real"}),
        ("Gaussian, warm 1e-3", "#5b9c6a", {"start": "warm 0.001"}),
    )
    for label, colour, change in kinds:
        costs = {}
        for pattern in COLOURS:
            points = _points(rows, {**BASE, "pattern": pattern, **change}, "passes")
            if points:
                costs[int(pattern.split(":")[1][:-1])] = _at_target(points)
        if costs:
            axis.plot(list(costs), list(costs.values()), marker="o", color=colour, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks([4, 8, 16, 32], ["4", "8", "16", "32"])
    axis.set_xlabel("block M (M/2 kept per row and column)")
    axis.set_ylabel("memory passes")
    axis.set_title("Cost grows with the block\n(4096 x 4096, 2 threads)", fontsize=11, loc="left")
    _tidy(axis)


def _at_target(points: Sequence[tuple[float, float]]) -> float:
    """The value at 4096, else at the largest size."""
    return dict(points).get(4096.0, max(points)[1])


def draw_methods(rows: Sequence[Row], path: Path) -> Path:
    """Time against proven distance from the optimum, one point for each method and pattern.

    Raises:
        ImportError: matplotlib is missing; it comes with the extra ``bisparse[plot]``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")
    axis: Any = figure.subplots()
    shapes = {"exact": "*", "greedy": "o", "two_approx": "s", "entropic": "D", "flow": "^", "product90": "P"}
    floor = 1e-7
    size = _size_of_most_methods(rows)
    for method, shape in shapes.items():
        for pattern, colour in COLOURS.items():
            where = {**BASE, "method": method, "pattern": pattern, "size": size}
            for row in _matching(rows, where):
                x, y = float(row["seconds"] or 0.0) * 1e3, max(float(row["gap"] or 0.0), floor)
                axis.scatter(x, y, marker=shape, color=colour, s=150 if method == "exact" else 55, zorder=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(f"time, ms ({size} x {size} float32, 2 threads; flow scaled up from a corner)")
    axis.set_ylabel("proven gap to the optimum")
    axis.set_yticks(
        [floor, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1], ["0", "1e-6", "1e-5", "0.01%", "0.1%", "1%", "10%"]
    )
    axis.set_title("Time and distance from the optimum: left and low is better", fontsize=11, loc="left")
    handles = [
        axis.scatter([], [], marker=shape, color="#555555", label=name) for name, shape in shapes.items()
    ]
    handles += [
        axis.scatter([], [], marker="_", color=colour, label=name) for name, colour in COLOURS.items()
    ]
    axis.legend(handles=handles, fontsize=8, ncols=2, frameon=False)
    axis.grid(color="#e3e7ec", linewidth=0.7)
    figure.savefig(path)
    return path


def _size_of_most_methods(rows: Sequence[Row]) -> int:
    """The size at which most methods were measured."""
    methods: dict[int, set[object]] = {}
    for row in rows:
        methods.setdefault(int(row["size"] or 0), set()).add(row["method"])
    return max(methods, key=lambda size: len(methods[size]), default=0)


def _tidy(axis: Axes) -> None:
    axis.grid(color="#e3e7ec", linewidth=0.7)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8.5, frameon=False)
    from matplotlib.ticker import LogLocator

    axis.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _matching(rows: Sequence[Row], where: Mapping[str, object]) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def _points(rows: Sequence[Row], where: Mapping[str, object], column: str) -> list[tuple[float, float]]:
    """(size, value) of every matching row."""
    return [(float(row["size"] or 0), float(row[column] or 0.0)) for row in _matching(rows, where)]
