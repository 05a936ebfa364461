"""The picture of an inspection: densities of all weights, and one mask from near."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.files.inspect_report import FileInspection, InspectedTensor
from bisparse.files.inspection import read_corner
from bisparse.files.layout_option import LayoutOption
from bisparse.files.partial import as_output_error
from bisparse.plots import draw_corner, draw_shares, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_inspection"]

_CORNER = 32


def plot_inspection(inspection: FileInspection, path: Path, *, layout: LayoutOption | None = None) -> Path:
    """Draw what an inspection found: the density of every weight, and a corner of one whose orientation is known.

    Args:
        inspection: of a checkpoint that is still there: a corner of one weight is read again.
        path: of the picture; the suffix chooses the format.
        layout: as given to the inspection.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is missing.
        OutputError: the picture cannot be written.
        ValueError: the checkpoint holds no weight, or the suffix is unknown.
    """
    weights = [t for t in inspection.tensors if t.density is not None and len(t.shape) > 1 and _is_weight(t)]
    if not weights:
        raise ValueError(f"{inspection.source} holds no weight to draw")
    names, densities = [t.name for t in weights], [t.density or 0.0 for t in weights]
    panels: list[Callable[[Axes], None]] = [
        lambda axes: draw_shares(axes, names, densities, label="density: share of non-zero weights")
    ]
    readable = [t for t in weights if not t.undecided and min(t.shape[:2]) > 1]
    if readable:
        chosen = min(readable, key=lambda t: (t.density == 1.0, not t.patterns, -t.bytes))
        panels.append(_corner_panel(inspection, chosen, layout))
    with as_output_error(path):
        size = (11.0, max(4.5, 0.13 * min(len(names), 60) + 1.5))
        return save_figure(path, size, panels, title=Path(inspection.source).name)


def _corner_panel(
    inspection: FileInspection, chosen: InspectedTensor, layout: LayoutOption | None
) -> Callable[[Axes], None]:
    corner = read_corner(inspection.source, chosen.name, size=_CORNER, layout=layout).numpy()
    found = re.search(r":(\d+)", inspection.pattern or chosen.patterns)
    block = int(found[1]) if found else 0
    title = f"{chosen.name} (pale: zero; darker: larger)\n{chosen.patterns or 'no pattern'}, "
    title += f"density {chosen.density:.3f}"
    return lambda axes: draw_corner(axes, corner, block=block, title=title)


def _is_weight(tensor: InspectedTensor) -> bool:
    return tensor.check is not None or tensor.taken_for.startswith(
        ("linear", "conv", "transposed", "experts", "Conv1D")
    )
