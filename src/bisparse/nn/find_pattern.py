"""The pattern that a masked matrix obeys already."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bisparse.kernels.packed import packed_sizes
from bisparse.pattern import NM

__all__ = ["find_pattern"]

BLOCKS = (4, 8, 16, 32)
ROWS_AT_ONCE = 256


def find_pattern(matrix: Tensor, mask: Tensor | None = None) -> NM:
    """The row-wise pattern with block 4, 8, 16 or 32 that stores a matrix in the fewest bytes.

    Args:
        matrix: (rows, columns).
        mask: True = kept; without it, the non-zeros.

    Returns:
        The pattern; of equal ones, that with the smallest block.

    Raises:
        ValueError: with each of these blocks the matrix would not become smaller.
    """
    rows, columns = matrix.shape
    most = dict.fromkeys(BLOCKS, 0)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        kept = matrix[part] != 0 if mask is None else mask[part]
        kept = functional.pad(kept.to(torch.uint8), (0, -columns % max(BLOCKS)))
        for block in BLOCKS:
            most[block] = max(most[block], int(kept.view(len(kept), -1, block).sum(2).max()))
    width = matrix.element_size()
    sizes: dict[NM, int] = {}
    for block, keep in most.items():
        if keep < block:
            slots, index_bytes = packed_sizes(columns, max(1, keep), block)
            sizes[NM(max(1, keep), block)] = slots * width + index_bytes
    best = min(sizes, key=lambda pattern: sizes[pattern], default=None)
    if best is None or sizes[best] >= columns * width:
        counts = ", ".join(f"{keep} of {block}" for block, keep in most.items())
        raise ValueError(
            f"the {rows} x {columns} weight is not N:M sparse: its fullest groups hold {counts}. Prune the layer "
            "first, for example bisparse.prune_(model, '4:8'), or leave it dense"
        )
    return best
