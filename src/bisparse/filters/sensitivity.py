"""Empirical sensitivity: the largest share that a weight or a channel has in any output, for any sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["KernelReduction", "channel_sensitivity", "weight_sensitivity"]

KernelReduction: TypeAlias = Literal["sum", "max"]
_ENTRIES = 2**21  # of an intermediate tensor: what stays in the cache of one core


def _signed(tensor: Tensor) -> list[Tensor]:
    """The positive and the negative part, as non-negative tensors; a part that is all zero is left out."""
    parts = [tensor.clamp(min=0)]
    if bool((tensor < 0).any()):
        parts.append((-tensor).clamp(min=0))
    return parts


def _inverse(totals: Tensor) -> Tensor:
    """1 / total, and 0 where it would overflow: nothing has a share in nothing."""
    return torch.where(totals >= torch.finfo(totals.dtype).tiny, 1.0 / totals, 0.0)


def _quadrants(weight: Tensor, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Non-negative (weights, inputs, 1 / their product) for each combination of signs."""
    for w in _signed(weight):
        for a in _signed(inputs):
            yield w, a, _inverse(w.flatten(1) @ a.flatten(0, 1))


def channel_sensitivity(weight: Tensor, inputs: Tensor, reduction: KernelReduction = "sum") -> Tensor:
    """The largest share of every channel in any output of a layer.

    The share of channel c in output o at position p is ``sum_k w_ock a_ckp / sum_ck w_ock a_ckp``, taken for the four
    combinations of signs of weights and inputs apart, so that every term is non-negative.

    Args:
        weight: (O, C, K) weights of O outputs, C channels, K kernel positions; or several slices of a unit.
        inputs: (C, K, P) what they are multiplied with, at P positions of all samples.
        reduction: ``"sum"`` over kernel positions, the channel's true share; ``"max"``: the largest share of a single
            position, as the published code computes; it may be too small by a factor of up to K.

    Returns:
        (C,) float32 in [0, 1]. Over the samples of one call; the maximum over several calls is that over all samples.

    Cost: as much arithmetic as the layer's forward pass, and O * C * P divisions, in pieces that stay in the cache.

    Source: Liebenwein et al., "Provable Filter Pruning for Efficient Neural Networks", 2020, and torchprune.
    """
    outputs, channels, kernel = weight.shape
    if inputs.shape[:2] != (channels, kernel):
        raise ValueError(
            f"inputs {tuple(inputs.shape)} do not fit weights {tuple(weight.shape)}: (C, K, P) is needed"
        )
    largest = weight.new_zeros(channels * kernel if reduction == "max" else channels)
    if reduction == "max":
        weight, inputs = weight.reshape(outputs, -1, 1), inputs.reshape(channels * kernel, 1, -1)
    for positions in torch.split(inputs, max(1, _ENTRIES // (4 * outputs)), dim=2):
        for w, a, inverse in _quadrants(weight, positions):
            step = max(1, _ENTRIES // max(inverse.numel(), 1))
            rows = w.transpose(0, 1)  # (C, O, K)
            for first in range(0, len(a), step):
                piece = slice(first, first + step)
                share = torch.bmm(rows[piece], a[piece]).mul_(inverse)  # (piece, O, P)
                largest[piece] = torch.maximum(largest[piece], share.amax((1, 2)))
    largest = largest.clamp_(max=1.0)  # rounding
    return largest.view(channels, kernel).amax(1) if reduction == "max" else largest


def weight_sensitivity(weight: Tensor, inputs: Tensor) -> Tensor:
    """The largest share of every single weight in its output.

    Args:
        weight: (O, C, K).
        inputs: (C, K, P).

    Returns:
        (O, C, K) float32 in [0, 1]: a non-negative score like any other, also for N:M masks.

    Cost: O * C * K * P multiplications.
    """
    flat, rows = weight.flatten(1), inputs.flatten(0, 1)
    largest = torch.zeros_like(flat)
    for positions in torch.split(rows, max(1, _ENTRIES // rows.shape[0]), dim=1):
        for w, a, inverse in _quadrants(flat[:, :, None], positions[:, None]):
            for output in range(len(flat)):
                share = (a[:, 0] * inverse[output]).amax(1) * w[output, :, 0]
                largest[output] = torch.maximum(largest[output], share)
    return largest.clamp_(max=1.0).view_as(weight)
