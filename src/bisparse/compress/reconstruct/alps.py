"""ALPS: mask and weights together by the alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.compress.problem import LayerProblem, Projection, Solution
from bisparse.compress.support import solve_on_support

__all__ = ["Alps"]


@dataclass(frozen=True, slots=True)
class Alps:
    """min over Ŵ and allowed masks of |Y - Ŵ X|²: split Ŵ = Z, Z allowed; alternate; then fit on the support.

    Inputs are scaled so that the Hessian has a unit diagonal. Round t solves (H + ρI) Ŵ = H W₀ + ρ Z - V,
    projects Ŵ + V/ρ exactly onto the pattern (the largest sum of squares that can be kept), updates the
    multiplier V, and raises ρ, the faster the more the mask still moves; it stops when the mask has settled.
    Least squares on the final support ends it. Chooses its own mask. Cost one eigen-decomposition, 2 R D² and
    one exact mask per round. The most accurate layer-wise method here; use it wherever D³ is affordable.
    Source: Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning", NeurIPS 2024; exact
    transposable projections are ours.

    Attributes:
        rounds: at most so many.
        penalty: first ρ, for a unit diagonal.
        damping: share of the mean of the Hessian's diagonal that is added to it; ``None`` = the problem's.
    """

    rounds: int = 300
    penalty: float = 0.1
    damping: float | None = None

    chooses_mask = True
    needs_data = True

    def __call__(self, problem: LayerProblem) -> Solution:
        """Choose the mask, then fit."""
        problem = problem.with_damping(self.damping)
        projection = self._mask(problem)
        rows = solve_on_support(problem.hessian, problem.target, projection.mask, problem.optimum)
        return problem.solution(rows, projection)

    def _mask(self, problem: LayerProblem) -> Projection:
        size = problem.hessian.diagonal(dim1=-2, dim2=-1).sqrt()[:, None, :]  # (G, 1, D)
        values, vectors = torch.linalg.eigh(problem.hessian / (size * size.mT))
        target = problem.target / size
        split, multiplier = problem.optimum * size, torch.zeros_like(target)
        projection = problem.project(split.square())
        split = split * projection.mask
        penalty = self.penalty
        for round_number in range(1, self.rounds + 1):
            weights = _shifted_solve(values, vectors, penalty, target - multiplier + penalty * split)
            shifted = weights + multiplier / penalty
            previous, projection = projection.mask, problem.project(shifted.square())
            split = shifted * projection.mask
            multiplier = multiplier + penalty * (weights - split)
            if round_number % 3 == 0:
                moved = float((previous ^ projection.mask).sum()) / max(float(previous.sum()), 1.0)
                if moved == 0.0 and round_number > 30:
                    break
                penalty *= 1.3 if moved > 0.1 else 1.2 if moved > 0.005 else 1.1
        return projection


def _shifted_solve(values: Tensor, vectors: Tensor, shift: float, right: Tensor) -> Tensor:
    """Solve X (H + shift I) = right for symmetric H = vectors diag(values) vectorsᵀ, all (G, ., D)."""
    return (right @ vectors / (values[:, None, :] + shift)) @ vectors.mT
