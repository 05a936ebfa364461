"""Samples mixed in pairs, so that few of them do not get learnt by heart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Mixture", "mix_pairs"]


class Mixture(NamedTuple):
    """Sample i is ``(1 - share[i]) * x[i] + share[i] * x[other[i]]``.

    Attributes:
        inputs: (n, ...), mixed.
        other: (n,) int64, the second sample of each pair.
        share: (n,) of the second sample.
    """

    inputs: Tensor
    other: Tensor
    share: Tensor


def mix_pairs(inputs: Tensor, largest: float, generator: torch.Generator | None = None) -> Mixture:
    """Mix every sample with another of its batch (mixup: Zhang et al., ICLR 2018, section 2).

    Shares are uniform between 0 and ``largest``, one for each sample, where the paper draws one for the whole batch
    from a Beta distribution.

    Args:
        inputs: (n, ...) of floating point.
        largest: share of the second sample at most, from 0 to 1; up to 0.5 the first sample dominates.
        generator: on the CPU, so that all devices mix alike; ``None`` = PyTorch's own.

    Raises:
        ValueError: a share out of its range, or inputs that have no values in between (token numbers, say).
    """
    if not 0.0 <= largest <= 1.0:
        raise ValueError(f"mixup={largest}: a share lies between 0 and 1")
    if not inputs.is_floating_point():
        raise ValueError(f"mixup needs inputs of floating point, got {inputs.dtype}: use mixup=0")
    column = largest * torch.rand((len(inputs),) + (1,) * (inputs.dim() - 1), generator=generator)
    other = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    share = column.to(inputs)
    return Mixture(inputs.lerp(inputs[other], share), other, share.flatten())
