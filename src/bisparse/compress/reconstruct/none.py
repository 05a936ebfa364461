"""Masking alone."""

from __future__ import annotations

from dataclasses import dataclass

from bisparse.compress.problem import LayerProblem, Solution

__all__ = ["NoReconstruction"]


@dataclass(frozen=True, slots=True)
class NoReconstruction:
    """Keep the best scores; kept weights and biases stay as they are. Needs no data.

    For the start of training, or where magnitudes carry everything.
    """

    chooses_mask = False
    needs_data = False

    def __call__(self, problem: LayerProblem) -> Solution:
        """Mask by the problem's scores."""
        projection = problem.project(problem.score())
        return Solution(problem.rows * projection.mask, projection)
