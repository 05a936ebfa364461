"""Pictures of results. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_corner", "draw_shares", "save_figure"]

INK, PALE, ACCENT = "#1f3a5f", "#dfe6ee", "#5d86b3"
_MAX_BARS = 60


def save_figure(
    path: Path,
    size: tuple[float, float],
    draw: Sequence[Callable[[Axes], None]],
    *,
    title: str = "",
    rows: int = 1,
) -> Path:
    """Draw panels side by side into a picture.

    Args:
        path: what to write; the suffix chooses the format (png, svg, pdf).
        size: width and height of the whole in inches.
        draw: one function for each panel.
        title: above all panels.
        rows: of panels; the last may have fewer.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
        OSError: the file cannot be written.
        ValueError: an unknown suffix.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "bisparse[plot]"') from None
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels: Any = figure.subplots(rows, -(-len(draw) // rows), squeeze=False)
    for axes, one in zip_longest(panels.flat, draw):
        one(axes) if one is not None else axes.set_axis_off()
    figure.suptitle(title)
    figure.savefig(path)
    return path


def draw_shares(axes: Axes, names: Sequence[str], shares: Sequence[float], *, label: str) -> None:
    """Horizontal bars of shares between 0 and 1; a long list shows every k-th, and says so."""
    step = -(-len(names) // _MAX_BARS) or 1
    shown = range(0, len(names), step)
    axes.barh([names[index] for index in shown], [shares[index] for index in shown], color=ACCENT)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(label + (f" (every {step}. of {len(names)})" if step > 1 else ""))
    axes.tick_params(axis="y", labelsize=6)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)


def draw_corner(axes: Axes, weight: npt.NDArray[np.float32], *, block: int, title: str) -> None:
    """A corner of a matrix: zeros pale, the rest darker with its magnitude, tile borders of ``block``."""
    from matplotlib.colors import LinearSegmentedColormap

    size = np.abs(weight)
    shade = np.where(size > 0, 0.3 + 0.7 * size / max(float(size.max()), 1e-30), 0.0)
    colours = LinearSegmentedColormap.from_list("cells", [PALE, ACCENT, INK])
    axes.imshow(shade, cmap=colours, vmin=0.0, vmax=1.0, interpolation="nearest")
    rows, columns = weight.shape
    for edge in range(0, max(rows, columns) + 1, block) if block else ():
        if edge <= columns:
            axes.axvline(edge - 0.5, color=INK, linewidth=0.5)
        if edge <= rows:
            axes.axhline(edge - 0.5, color=INK, linewidth=0.5)
    axes.set_xlabel("inputs")
    axes.set_ylabel("outputs")
    axes.set_title(title, fontsize=9)
