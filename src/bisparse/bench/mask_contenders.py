"""What the exact solver is timed against: the memory pass, masks by topk, the product of all 90 masks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import torch
from torch import Tensor

from bisparse.pattern import NM, Pattern, Unstructured

__all__ = ["BASELINES", "memory_pass", "product90_mask", "topk_mask"]

CHUNK_TILES = 1 << 15


def memory_pass(weights: Tensor) -> Callable[[], object]:
    """One read and one write of every weight into memory that is already there: the unit of all costs."""
    buffer = torch.empty_like(weights)
    buffer.zero_()  # touch the pages, or the first passes would pay for them
    return lambda: torch.abs(weights, out=buffer)


def topk_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """A row-wise or unstructured mask as most pruning code makes it: ``torch.topk``, then scatter.

    Raises:
        ValueError: the pattern is transposable, or the columns are not a multiple of its block.
    """
    if isinstance(pattern, NM):
        if scores.shape[-1] % pattern.block:
            raise ValueError(f"{scores.shape[-1]} columns: topk_mask needs a multiple of {pattern.block}")
        groups, kept = scores.reshape(-1, pattern.block), pattern.keep
    elif isinstance(pattern, Unstructured):
        groups, kept = scores.reshape(1, -1), pattern.kept(scores.numel())
    else:
        raise ValueError(f"pattern {pattern}: torch.topk cannot make transposable masks")
    chosen = groups.topk(kept, dim=1, sorted=False).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, chosen, True).reshape(scores.shape)


def product90_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """The exact 2:4t mask by trying all 90 masks of every tile in one matrix product, in chunks.

    Raises:
        ValueError: another pattern than 2:4t, or sides that are not multiples of 4.
    """
    if str(pattern) != "2:4t" or scores.shape[-1] % 4 or scores.shape[-2] % 4:
        raise ValueError(
            f"pattern {pattern}, shape {tuple(scores.shape)}: this is for 2:4t and whole 4 x 4 tiles"
        )
    rows, columns = scores.shape[-2:]
    masks = _all_masks(scores.dtype)
    tiles = scores.reshape(rows // 4, 4, columns // 4, 4).transpose(1, 2).reshape(-1, 16)
    best = torch.cat([(chunk @ masks.T).argmax(1) for chunk in torch.split(tiles, CHUNK_TILES)])
    chosen = masks.bool()[best].reshape(rows // 4, columns // 4, 4, 4)
    return chosen.transpose(1, 2).reshape(rows, columns)


def _all_masks(dtype: torch.dtype) -> Tensor:
    """The 90 masks of a 4 x 4 tile with two kept per line, (90, 16)."""
    lines = [[1.0 if place in kept else 0.0 for place in range(4)] for kept in combinations(range(4), 2)]
    tiles = [
        tile
        for tile in product(lines, repeat=4)
        if all(sum(column) == 2 for column in zip(*tile, strict=True))
    ]
    return torch.tensor(tiles, dtype=dtype).reshape(len(tiles), 16)


BASELINES: dict[str, Callable[[Tensor, Pattern], Tensor]] = {"topk": topk_mask, "product90": product90_mask}
