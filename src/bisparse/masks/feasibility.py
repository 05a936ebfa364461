"""Does a mask obey its pattern? Line sums counted afresh, violations named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from bisparse.masks.chunks import Band, bands
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured

__all__ = ["find_violations"]


@dataclass(frozen=True, slots=True)
class _Lines:
    """Kept entries per line of one band, and how many each line must or may keep.

    ``sums`` is (b, tile rows, row in tile, tile columns) for rows and (b, tile rows, tile columns, column
    in tile) for columns; ``complete`` broadcasts to it.
    """

    kind: str
    sums: Tensor
    complete: Tensor

    def bad(self, keep: int, at_most: bool) -> Tensor:
        above = self.sums > keep
        return above if at_most else above | (self.complete & (self.sums < keep))


def find_violations(mask: Tensor, pattern: Pattern, *, at_most: bool = False) -> list[str]:
    """Say how a mask (B, R, C) breaks its pattern; an empty list means that it obeys.

    One sentence per kind of line (rows, columns) with the number of bad lines and the place of the first.
    ``at_most``: complete lines may keep less, too.
    """
    if isinstance(pattern, Unstructured):
        kept, allowed = int(mask.count_nonzero()), pattern.kept(mask.numel())
        obeys = kept <= allowed if at_most else kept == allowed
        limit = "at most" if at_most else "exactly"
        return [] if obeys else [f"{kept} entries are kept, but {pattern} keeps {limit} {allowed}"]
    counts: dict[str, int] = {}
    firsts: dict[str, str] = {}
    for band in bands(mask.shape, pattern.block):
        for lines in _lines(band.of(mask, torch.uint8), pattern):
            bad = lines.bad(pattern.keep, at_most)
            count = int(bad.count_nonzero())
            if count:
                counts[lines.kind] = counts.get(lines.kind, 0) + count
                firsts.setdefault(lines.kind, _describe(lines, bad, band, mask.shape, pattern, at_most))
    return [f"{counts[kind]} {kind} break {pattern}; the first: {firsts[kind]}" for kind in counts]


def _lines(mask: Tensor, pattern: NM | TransposableNM) -> Iterator[_Lines]:
    """Count kept entries along the lines of each tile of a band (b, h, C)."""
    height, width = mask.shape[-2:]
    tall, wide = _tile_shape(pattern)
    tiles = pad(mask, (0, -width % wide, 0, -height % tall))  # zeros beyond the edge
    down, across = tiles.shape[1] // tall, tiles.shape[2] // wide
    tiles = tiles.reshape(-1, down, tall, across, wide)
    full_down = torch.arange(down) < height // tall
    full_across = torch.arange(across) < width // wide
    complete = full_down[:, None] & full_across
    transposable = isinstance(pattern, TransposableNM)
    yield _Lines("rows of tiles" if transposable else "row groups", tiles.sum(-1), complete[:, None, :])
    if transposable:
        yield _Lines("columns of tiles", tiles.sum(2), complete[:, :, None])


def _tile_shape(pattern: NM | TransposableNM) -> tuple[int, int]:
    return (pattern.block if isinstance(pattern, TransposableNM) else 1), pattern.block


def _describe(
    lines: _Lines, bad: Tensor, band: Band, shape: torch.Size, pattern: NM | TransposableNM, at_most: bool
) -> str:
    where = [int(i) for i in bad.nonzero()[0]]
    kept = int(lines.sums[tuple(where)])
    exactly = not at_most and bool(lines.complete.expand_as(lines.sums)[tuple(where)])
    tall, wide = _tile_shape(pattern)
    if lines.kind == "columns of tiles":
        matrix, down, across, inner = where
        row, column = band.rows.start + down * tall, across * wide + inner
        place = f"column {column}, rows {row}..{min(row + tall, shape[1]) - 1}"
    else:
        matrix, down, inner, across = where
        row, column = band.rows.start + down * tall + inner, across * wide
        place = f"row {row}, columns {column}..{min(column + wide, shape[2]) - 1}"
    prefix = f"matrix {band.batch.start + matrix}, " if shape[0] > 1 else ""
    return f"{prefix}{place} keep {kept}, must keep {'exactly' if exactly else 'at most'} {pattern.keep}"
