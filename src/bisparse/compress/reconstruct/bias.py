"""Mean correction."""

from __future__ import annotations

from dataclasses import dataclass

from bisparse.compress.problem import LayerProblem, Solution

__all__ = ["BiasCorrection"]


@dataclass(frozen=True, slots=True)
class BiasCorrection:
    """Move the bias so that every output keeps its mean; the cheapest correction, R D per layer.

    Layers without a bias are only masked (a batch norm that follows absorbs the mean; see ``batch_norm=``).
    Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019.
    """

    chooses_mask = False
    needs_data = True

    def __call__(self, problem: LayerProblem) -> Solution:
        """Mask by the problem's scores, then absorb the mean error."""
        projection = problem.project(problem.score())
        return problem.solution(problem.rows * projection.mask, projection)
