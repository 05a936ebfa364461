"""Unstructured masks on the device, by PyTorch's own selection; ties go to the lower flat index."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["keep_largest"]


def keep_largest(scores: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The mask of the ``kept`` largest entries of non-negative finite scores, and their float64 sum on the device.

    Args:
        scores: any shape, float16 to float32.
        kept: how many, from 0 to all of them.

    Cost: one radix selection and a few passes; a running count of the ties takes 4 bytes an entry.
    """
    flat = scores.reshape(-1)
    if kept == 0 or flat.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool), torch.zeros(
            (), dtype=torch.float64, device=flat.device
        )
    threshold = flat.kthvalue(flat.numel() - kept + 1).values
    above = flat > threshold
    level = flat == threshold
    order = level.cumsum(0, dtype=torch.int32 if flat.numel() < 2**31 else torch.int64)
    mask = above | (level & (order <= kept - above.sum()))
    return mask.reshape(scores.shape), (flat * mask).sum(dtype=torch.float64)
