"""SparseGPT: masks and updates column block by column block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.compress.problem import LayerProblem, Projection, Solution

__all__ = ["SparseGPT"]


@dataclass(frozen=True, slots=True)
class SparseGPT:
    """Walk the columns from left to right; prune a block, let all later columns make good the error.

    In each block of M columns the mask maximises the sum of w² / [H⁻¹]_jj of the current weights: exactly,
    for the row-wise pattern and for whole tiles of the transposable one. Chooses its own mask. Cost D³ / 3 +
    R D² per group; the method of choice for wide layers, where one factorisation per row is too dear.
    Source: Frantar and Alistarh, "SparseGPT", ICML 2023; the tile-exact masks are ours.

    Attributes:
        damping: share of the mean of the Hessian's diagonal that is added to it.
    """

    damping: float | None = 1e-2

    chooses_mask = True
    needs_data = True

    def __call__(self, problem: LayerProblem) -> Solution:
        """Prune and update."""
        problem = problem.with_damping(self.damping)
        weights = problem.optimum.clone()
        inverse = torch.cholesky_inverse(problem.hessian_factor)
        factor = torch.linalg.cholesky(inverse, upper=True)  # (G, D, D): row j serves the columns after j
        mask = torch.zeros_like(weights, dtype=torch.bool)
        gap = 0.0
        for first, last in problem.column_blocks():
            scale = factor.diagonal(dim1=-2, dim2=-1)[:, None, first:last]
            scores = (weights[..., first:last] / scale).square()
            chosen = problem.project_columns(scores, first, last)
            mask[..., first:last] = chosen.mask
            gap = max(gap, chosen.gap)
            _eliminate(weights, factor, chosen.mask, first, last)
        return problem.solution(weights, Projection(mask, gap))


def _eliminate(weights: Tensor, factor: Tensor, keep: Tensor, first: int, last: int) -> None:
    """Zero the pruned entries of columns first..last and move their error to later columns, in place."""
    errors = torch.zeros_like(weights[..., first:last])
    for j in range(first, last):
        lost = weights[..., j] * ~keep[..., j - first] / factor[:, j, j, None]
        errors[..., j - first] = lost
        weights[..., j:last] -= lost[:, :, None] * factor[:, None, j, j:last]
        weights[..., j] *= keep[..., j - first]
    weights[..., last:] -= errors @ factor[:, first:last, last:]
