"""Weights as regression problems: each output feature is a linear function of one row of inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from bisparse.weights.layout import Layout, as_matrices, from_matrices

__all__ = ["as_rows", "from_rows", "matrices_as_rows", "rows_as_matrices"]


def _positions(layout: Layout, shape: Sequence[int]) -> int:
    """Matrices that share one output row: the kernel positions of a convolution, else one."""
    return math.prod(shape[2:]) if layout.kind in ("conv", "conv_transpose") else 1


def matrices_as_rows(matrices: Tensor, layout: Layout, shape: Sequence[int]) -> Tensor:
    """(groups * positions, R, C) matrices of a weight of that shape -> (groups, R, positions * C) rows."""
    positions = _positions(layout, shape)
    split = matrices.reshape(-1, positions, *matrices.shape[1:])
    return split.transpose(1, 2).flatten(2)


def rows_as_matrices(rows: Tensor, layout: Layout, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`matrices_as_rows`."""
    positions = _positions(layout, shape)
    split = rows.reshape(*rows.shape[:2], positions, -1)
    return split.transpose(1, 2).flatten(0, 1)


def as_rows(tensor: Tensor, layout: Layout) -> Tensor:
    """Read a weight as (groups, R, D): ``outputs[g] = inputs[g] @ rows[g].T``.

    Groups are those of a convolution, the experts, or the parts of a fused projection. D runs over kernel
    positions, then input channels, so that every run of ``block`` columns inside one position is one column
    of tiles.
    """
    return matrices_as_rows(as_matrices(tensor, layout), layout, tensor.shape)


def from_rows(rows: Tensor, layout: Layout, shape: Sequence[int]) -> Tensor:
    """Exact inverse of :func:`as_rows`, for a weight of the given shape."""
    return from_matrices(rows_as_matrices(rows, layout, shape), layout, shape)
