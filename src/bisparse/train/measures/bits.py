"""Masks as bits: an eighth of a byte for each entry."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bisparse.train import device

__all__ = ["count", "pack", "unpack"]


def count(mask: Tensor) -> int | Tensor:
    """How many entries are True; a tensor where to know the number would mean to wait for the device."""
    if device.on_cpu(mask):  # several times as fast as torch's sum of booleans
        return int(np.count_nonzero(mask.numpy()))
    return mask.sum()


def pack(mask: Tensor) -> Tensor:
    """(R, ...) booleans as (R, ceil(n / 8)) bytes, n entries in each row; highest bit first."""
    rows = mask.flatten(1)
    if device.on_cpu(mask):
        return torch.from_numpy(np.packbits(rows.numpy(), axis=1))
    padded = torch.nn.functional.pad(rows.to(torch.uint8), (0, -rows.shape[1] % 8))
    places = padded.reshape(len(rows), padded.shape[1] // 8, 8) << _shifts(mask)
    return places.sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Inverse of :func:`pack`, for a mask of that shape."""
    width = 1
    for size in shape[1:]:
        width *= size
    if device.on_cpu(packed):
        bits = np.unpackbits(packed.numpy(), axis=1, count=width) if width else packed.numpy()
        return torch.from_numpy(bits).bool().reshape(shape)
    bits_of = (packed.unsqueeze(-1) >> _shifts(packed)) & 1
    return bits_of.flatten(1)[:, :width].bool().reshape(shape)


def _shifts(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
