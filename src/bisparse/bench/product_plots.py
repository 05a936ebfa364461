"""Speed-up over the number of tokens, one line per shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.bench.ledger import Row
from bisparse.plots import INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_speedups"]


def draw_speedups(rows: Sequence[Row], path: Path) -> Path:
    """One panel per pattern and type; above the line at 1 the packed layer is faster.

    Raises:
        ImportError: matplotlib is missing.
    """
    panels = list(dict.fromkeys((str(row["pattern"]), str(row["dtype"])) for row in rows))
    draw = [_panel([r for r in rows if (r["pattern"], r["dtype"]) == key], " ".join(key)) for key in panels]
    mode = "forward" if rows and rows[0]["mode"] == "inference" else "forward and backward"
    title = f"Packed against dense linear layers, {mode}\n{rows[0]['machine'] if rows else ''}"
    return save_figure(path, (4.2 * len(draw), 3.8), draw, title=title)


def _panel(rows: Sequence[Row], title: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for shape in dict.fromkeys(f"{row['rows']}x{row['columns']}" for row in rows):
            line = [row for row in rows if f"{row['rows']}x{row['columns']}" == shape]
            tokens, speedups = ([float(row[key] or 0.0) for row in line] for key in ("tokens", "speedup"))
            axes.plot(tokens, speedups, marker="o", label=shape)
        axes.axhline(1.0, color=INK, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("tokens (batch)")
        axes.set_ylabel("dense time / packed time")
        axes.set_title(title, fontsize=10)
        axes.grid(color=PALE)
        axes.legend(fontsize=7)

    return draw
