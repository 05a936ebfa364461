"""The one view of every weight tensor as a batch of matrices: rows = output features, columns = input
features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

__all__ = ["Layout", "LayoutKind", "as_matrices", "from_matrices"]

LayoutKind = Literal["linear", "transposed", "conv", "conv_transpose", "experts", "experts_transposed"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a weight tensor is read as matrices.

    ============================  ========================  ======================================
    kind                          tensor                    matrices (batch, rows, columns)
    ============================  ========================  ======================================
    ``linear``                    (parts*R, C)              (parts, R, C)
    ``transposed``                (C, R), HF ``Conv1D``     (1, R, C)
    ``conv``                      (O, I/groups, *k)         (groups*prod(k), O/groups, I/groups)
    ``conv_transpose``            (I, O/groups, *k)         (groups*prod(k), O/groups, I/groups)
    ``experts``                   (E, R, C)                 (E, R, C)
    ``experts_transposed``        (E, C, R)                 (E, R, C)
    ============================  ========================  ======================================

    A convolution is cut into one matrix per kernel position, so that groups of M run along input channels and
    no tile mixes kernel positions. Gates of a recurrent layer stay one (gates*H, C) matrix: the backward
    product reduces over all gates at once, and a file without code shows the same matrix.

    Attributes:
        kind: see the table.
        parts: matrices stacked along the rows of a ``linear`` weight (3 for a fused attention projection), or
            the groups of a convolution.
        oriented: whether it is known which axis is the input. Where it is not, a row-wise pattern must be
            refused; a transposable one needs no orientation.
    """

    kind: LayoutKind = "linear"
    parts: int = 1
    oriented: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(LayoutKind):
            raise ValueError(
                f"unknown layout kind {self.kind!r}: use one of {', '.join(get_args(LayoutKind))}"
            )
        if self.parts < 1:
            raise ValueError(f"a layout has at least one part, got {self.parts}")


def _check(shape: Sequence[int], layout: Layout) -> None:
    """Raise where a tensor of this shape cannot be read with this layout."""
    dims = len(shape)
    wanted = {"linear": dims == 2, "transposed": dims == 2, "conv": dims >= 2, "conv_transpose": dims >= 2}
    if not wanted.get(layout.kind, dims == 3):
        raise ValueError(
            f"a weight of shape {tuple(shape)} cannot be read as {layout.kind!r}: choose another layout"
        )
    if layout.kind in ("linear", "conv", "conv_transpose") and shape[0] % layout.parts:
        raise ValueError(f"{shape[0]} rows of a {tuple(shape)} weight do not split into {layout.parts} parts")


def as_matrices(tensor: Tensor, layout: Layout) -> Tensor:
    """Read a weight (or its scores, mask, gradient) as a batch of matrices.

    Args:
        tensor: the weight, of a shape that the layout's table allows; any dtype and device.
        layout: how to read it.

    Returns:
        (batch, rows, columns), rows = output features. A view, except for grouped convolutions with more than
        one kernel position, whose batch axis no stride can describe.

    Raises:
        ValueError: the shape does not fit the layout.
    """
    _check(tensor.shape, layout)
    parts = layout.parts
    match layout.kind:
        case "linear":
            return tensor.reshape(parts, -1, tensor.shape[1])
        case "transposed":
            return tensor.t().unsqueeze(0)
        case "experts":
            return tensor
        case "experts_transposed":
            return tensor.transpose(1, 2)
    first, second, *kernel = tensor.shape
    split = tensor.reshape(parts, first // parts, second, math.prod(kernel))
    order = (0, 3, 1, 2) if layout.kind == "conv" else (0, 3, 2, 1)
    return split.permute(order).flatten(0, 1)


def from_matrices(matrices: Tensor, layout: Layout, shape: Sequence[int]) -> Tensor:
    """Exact inverse of :func:`as_matrices`, for weights and masks alike.

    Args:
        matrices: (batch, rows, columns).
        layout: the layout that made them.
        shape: shape of the original tensor.

    Returns:
        A contiguous tensor of the given shape.

    Raises:
        ValueError: the matrices do not belong to that shape and layout.
    """
    _check(shape, layout)
    if matrices.dim() != 3 or matrices.numel() != math.prod(shape):
        raise ValueError(f"matrices of shape {tuple(matrices.shape)} do not fill a {tuple(shape)} weight")
    match layout.kind:
        case "linear":
            return matrices.reshape(tuple(shape)).contiguous()
        case "transposed":
            return matrices[0].t().contiguous()
        case "experts":
            return matrices.contiguous()
        case "experts_transposed":
            return matrices.transpose(1, 2).contiguous()
    split = matrices.reshape(layout.parts, math.prod(shape[2:]), *matrices.shape[1:])  # (g, k, rows, columns)
    order = (0, 2, 3, 1) if layout.kind == "conv" else (0, 3, 2, 1)
    return split.permute(order).reshape(tuple(shape)).contiguous()
