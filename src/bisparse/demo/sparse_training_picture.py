"""The picture of sparse training: where connections go, how accuracy rises, how much is explored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bisparse.demo.sparse_training_report import SparseTrainingReport
from bisparse.plots import ACCENT, INK, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_sparse_training"]

_STYLES: dict[str, dict[str, Any]] = {
    "dense": {"color": INK, "linestyle": "--", "linewidth": 1.2},
    "static": {"color": "#9aa5b1", "linewidth": 1.4},
    "set": {"color": "#c8452d", "linewidth": 2.0},
    "rigl": {"color": ACCENT, "linewidth": 1.6},
}


def draw_sparse_training(report: SparseTrainingReport, path: Path) -> Path:
    """Draw the pixels' connections over the epochs above the curves.

    Args:
        report: of the demo.
        path: of the PNG; its folder must exist.

    Returns:
        The path. ``ImportError`` is raised where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 6.6), dpi=150, layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.0, 1.35])
    upper, lower = halves
    maps: Any = upper.subplots(1, 1 + len(report.connections))
    _draw_map(maps[0], report.image, "Greys", None)
    maps[0].set_title("mean training image", fontsize=9)
    most = max(int(grid.max().item()) for grid in report.connections.values())
    for axes, (epoch, grid) in zip(maps[1:], report.connections.items(), strict=True):
        shown = _draw_map(axes, grid, "magma", most)
        axes.set_title("start, at random" if epoch == 0 else f"after epoch {epoch}", fontsize=9)
    upper.colorbar(shown, ax=maps[-1], shrink=0.8)
    upper.suptitle(
        f"SET: connections of each pixel. The half of the pixels with most ink has {report.on_ink(0):.0%} of them at "
        f"the start, {report.on_ink(report.epochs):.0%} at the end.",
        fontsize=11,
    )
    curves: Any = lower.subplots(1, 2)
    _draw_accuracy(curves[0], report)
    _draw_explored(curves[1], report)
    figure.savefig(path)
    return path


def _draw_map(axes: Axes, grid: Tensor, colours: str, most: int | None) -> Any:
    shown = axes.imshow(grid.numpy(), cmap=colours, vmin=None if most is None else 0, vmax=most)
    axes.set_xticks([])
    axes.set_yticks([])
    return shown


def _draw_accuracy(axes: Axes, report: SparseTrainingReport) -> None:
    for row in report.rows:
        label = f"{row.method}: {row.weights} weights, test {row.accuracy:.1%}"
        axes.plot(
            range(1, len(row.curve) + 1), [100 * y for y in row.curve], label=label, **_STYLES[row.method]
        )
    lowest = min(min(row.curve[len(row.curve) // 4 :]) for row in report.rows)
    axes.set_ylim(100 * lowest - 2.0, 100.4)
    _finish(axes, f"accuracy on held-out digits, % (mean of {report.runs})")


def _draw_explored(axes: Axes, report: SparseTrainingReport) -> None:
    for row in report.rows:
        if row.explored_curve:
            shares = [100 * share for share in row.explored_curve]
            axes.plot(range(1, len(shares) + 1), shares, label=row.method, **_STYLES[row.method])
    axes.set_ylim(0, 100)
    _finish(axes, "possible connections that have been tried so far, % ($R_s$)")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch")
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)
