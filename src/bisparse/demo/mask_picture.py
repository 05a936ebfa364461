"""The picture of the masks: one corner of a real layer under every pattern, line sums at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bisparse.demo.report import DemoReport
from bisparse.pattern import NM, Pattern, TransposableNM, parse_pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_masks"]

CORNER, MARGIN = 16, 2.2
INK, PALE, GOOD, OVER, UNDER = "#1f3a5f", "#eef1f5", "#5b9c6a", "#c8452d", "#e9a53b"


def draw_masks(report: DemoReport, path: Path) -> Path:
    """Draw the top left corner of the report's layer: its magnitudes, then what every case keeps of them.

    Args:
        report: of the demo.
        path: of the PNG; its folder must exist.

    Returns:
        The path. ``ImportError`` is raised where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    cases = _cases(report)
    weight = report.weight[:CORNER, :CORNER].abs()
    figure = Figure(figsize=(3.35 * (len(cases) + 1) / 2 + 0.2, 8.1), dpi=150, layout="constrained")
    grid: Any = figure.subplots(2, (len(cases) + 2) // 2)
    axes = list(grid.flat)
    _draw_corner(axes[0], weight, torch.ones_like(weight, dtype=torch.bool), None)
    axes[0].set_title("dense weights\ndarker = larger magnitude", fontsize=10)
    for axis, (pattern, method) in zip(axes[1:], cases, strict=False):
        mask = report.masks[pattern, method][:CORNER, :CORNER]
        _draw_corner(axis, weight, mask, parse_pattern(pattern))
        kept = float((weight * mask).sum() / weight.sum())
        axis.set_title(f"{pattern} by {method}\nkeeps {kept:.1%} of this corner's magnitude", fontsize=10)
    for axis in axes[len(cases) + 1 :]:
        axis.set_axis_off()
    figure.suptitle(
        "The same layer under different masks: what is kept, and whether rows and columns add up", fontsize=13
    )
    figure.supxlabel(
        "Marks at the edges: one per line and tile.  Green: exactly N kept.  Red: more than N, so this "
        "direction is not N:M.  Orange: fewer than N.",
        fontsize=9.5,
    )
    figure.savefig(path)
    return path


def _cases(report: DemoReport) -> list[tuple[str, str]]:
    """Every exact mask first, then the other methods at the last pattern, where they differ most."""
    exact = [case for case in report.masks if case[1] == "exact"]
    last = exact[-1][0]
    others = [case for case in report.masks if case[0] == last and case[1] in ("greedy", "two_approx")]
    return exact + others


def _draw_corner(axis: Axes, weight: Tensor, mask: Tensor, pattern: Pattern | None) -> None:
    """Cells, tile borders and, for a pattern in groups, the line sums."""
    shade = (0.25 + 0.75 * weight / weight.max()).where(mask, torch.tensor(0.0))
    axis.imshow(shade.numpy(), cmap=_cells(), vmin=0.0, vmax=1.0, interpolation="nearest")
    axis.set_axis_off()
    axis.set_aspect("equal")
    axis.set_xlim(-0.6, CORNER + MARGIN)
    axis.set_ylim(CORNER + MARGIN, -0.6)
    if not isinstance(pattern, NM | TransposableNM):
        return
    for edge in range(0, CORNER + 1, pattern.block):
        axis.plot([edge - 0.5] * 2, [-0.5, CORNER - 0.5], color=INK, linewidth=0.8)
        axis.plot([-0.5, CORNER - 0.5], [edge - 0.5] * 2, color=INK, linewidth=0.8)
    blocks = CORNER // pattern.block
    row_sums = mask.reshape(CORNER, blocks, pattern.block).sum(-1)  # (row, tile)
    column_sums = mask.reshape(blocks, pattern.block, CORNER).sum(1)  # (tile, column)
    for tile in range(blocks):
        for line in range(CORNER):
            place = CORNER + 0.62 * tile
            _mark(axis, place, line, int(row_sums[line, tile]) - pattern.keep)
            _mark(axis, line, place, int(column_sums[tile, line]) - pattern.keep)


def _mark(axis: Axes, x: float, y: float, surplus: int) -> None:
    """One line sum as a small square."""
    colour = GOOD if surplus == 0 else OVER if surplus > 0 else UNDER
    axis.plot(x, y, marker="s", markersize=4.2, color=colour, clip_on=False)


def _cells() -> Any:
    """Colours of the cells: pale where masked, then from light to dark blue with the magnitude."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("cells", [PALE, "#b9cbe0", "#5d86b3", INK])
