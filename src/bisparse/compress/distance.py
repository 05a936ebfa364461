"""Relative squared distance of two tensors, in one pass over the memory for each direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["relative_distance"]


def relative_distance(found: Tensor, goal: Tensor) -> Tensor:
    """|found - goal|² / |goal|² over all entries, differentiable in ``found`` (once).

    Three passes over the memory forward and one backward, whatever the memory format (PyTorch's own loss
    writes its gradient in the contiguous format, so that channels-last activations are copied to and fro).

    Args:
        found: floating point.
        goal: of the same shape; no gradient flows to it.

    Returns:
        A scalar; 0 where the goal is zero throughout (its square at most 1e-30), which has no relative distance.
    """
    distance: Tensor = _RelativeDistance.apply(found, goal)  # type: ignore[no-untyped-call]
    return distance


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All entries in one dimension, without a copy where they lie side by side in any format."""
    axes = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(axes).reshape(-1)


def _square(tensor: Tensor) -> Tensor:
    flat = _in_memory_order(tensor)
    return flat.dot(flat)


class _RelativeDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, goal: Tensor) -> Tensor:
        change, size = found - goal, _square(goal)
        # The quotient of a silent layer would outweigh those of all others.
        size = size.where(size > 1e-30, float("inf"))
        ctx.save_for_backward(change, size)
        return _square(change) / size

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        change, size = ctx.saved_tensors
        return change * (2 * outer / size), None
