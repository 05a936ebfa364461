"""How masks moved, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_history"]


def draw_history(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Draw flip rates by cause, the distance from the first masks, and the kept magnitude over steps.

    Args:
        history: ``Sparsifier.history``.
        path: what to write; the suffix chooses the format.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
        ValueError: no refresh has been recorded.
    """
    if not history:
        raise ValueError("no refresh is recorded yet: there is nothing to draw")
    rows = history[1:] or history
    steps = [row["step"] for row in rows]

    def flips(axes: Axes) -> None:
        forced = [row["flips_forced"] / row["entries"] for row in rows]
        axes.stackplot(
            steps,
            forced,
            [row["flip_rate"] - share for row, share in zip(rows, forced, strict=True)],
            labels=["forced by the column constraint", "by magnitude"],
            colors=[INK, ACCENT],
        )
        axes.legend(fontsize=7)
        _finish(axes, "entries that change at a refresh")

    def distance(axes: Axes) -> None:
        axes.plot(steps, [row["flip_rate_from_start"] for row in rows], color=INK)
        _finish(axes, "entries that differ from the first mask")

    def kept(axes: Axes) -> None:
        axes.plot(steps, [row["kept_magnitude"] for row in rows], color=INK)
        _finish(axes, "kept share of the magnitude")

    return save_figure(path, (11.0, 3.2), [flips, distance, kept])


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step")
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
