"""Pieces of large tensors, so that float64 checks of a big layer need little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Band", "bands", "flat_chunks"]

_CHUNK = 1 << 22  # entries: 32 MiB in float64


@dataclass(frozen=True, slots=True)
class Band:
    """A piece of a (B, R, C) tensor: some of its matrices, and of those some rows, whole tiles at a time."""

    batch: slice
    rows: slice

    def of(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the piece on the CPU in the given type."""
        return tensor[self.batch, self.rows].to("cpu", dtype)


def bands(shape: torch.Size, block: int, size: int = _CHUNK) -> Iterator[Band]:
    """Cut (B, R, C) into pieces of about ``size`` entries: whole matrices, or rows of tiles of one matrix."""
    batch, rows, columns = shape
    if 0 in shape:
        return
    matrices = max(1, size // (rows * columns))
    height = rows if rows * columns <= size else max(1, size // (block * columns)) * block
    for first in range(0, batch, matrices):
        for top in range(0, rows, height):
            yield Band(slice(first, min(batch, first + matrices)), slice(top, min(rows, top + height)))


def flat_chunks(tensor: Tensor, size: int = _CHUNK) -> Iterator[tuple[int, Tensor]]:
    """Yield (offset, piece) of the flattened tensor, each piece as float64 on the CPU."""
    flat = tensor.reshape(-1)
    for start in range(0, flat.numel(), size):
        yield start, flat[start : start + size].to("cpu", torch.float64)
