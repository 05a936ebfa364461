"""The picture of an inspection: densities of all weights, and one mask from near."""

from __future__ import annotations

import re
from pathlib import Path

from bisparse.files.inspect_report import FileInspection, InspectedTensor
from bisparse.files.inspection import read_corner
from bisparse.files.layout_option import LayoutOption
from bisparse.plots import draw_corner, draw_shares, save_figure

__all__ = ["plot_inspection"]

_CORNER = 32


def plot_inspection(inspection: FileInspection, path: Path, *, layout: LayoutOption | None = None) -> Path:
    """Draw what an inspection found.

    Args:
        inspection: of a checkpoint that is still there: a corner of one weight is read again.
        path: of the picture; the suffix chooses the format.
        layout: as given to the inspection.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the checkpoint holds no weight, or the suffix is unknown.
    """
    weights = [t for t in inspection.tensors if t.density is not None and len(t.shape) > 1]
    readable = [t for t in weights if t.taken_for and not t.undecided and min(t.shape[:2]) > 1]
    candidates = [t for t in readable if _is_weight(t)]
    if not candidates:
        raise ValueError(f"{inspection.source} holds no weight to draw")
    chosen = min(candidates, key=lambda t: (t.density == 1.0, not t.patterns, -t.bytes))
    corner = read_corner(inspection.source, chosen.name, size=_CORNER, layout=layout).numpy()
    found = re.search(r":(\d+)", inspection.pattern or chosen.patterns)
    block = int(found[1]) if found else 0
    names = [t.name for t in candidates]
    densities = [t.density or 0.0 for t in candidates]
    title = f"{chosen.name}\n{chosen.patterns or 'no pattern'}, density {chosen.density:.3f}"
    return save_figure(
        path,
        (11.0, max(4.5, 0.13 * min(len(names), 60) + 1.5)),
        [
            lambda axes: draw_shares(axes, names, densities, label="density: share of non-zero weights"),
            lambda axes: draw_corner(axes, corner, block=block, title=title),
        ],
        title=Path(inspection.source).name,
    )


def _is_weight(tensor: InspectedTensor) -> bool:
    return tensor.check is not None or tensor.taken_for.startswith(
        ("linear", "conv", "transposed", "experts", "Conv1D")
    )
