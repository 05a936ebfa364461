"""AdaPrune: gradient descent on the kept weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.compress.problem import LayerProblem, Solution
from bisparse.pattern import Unstructured

__all__ = ["AdaPrune"]


@dataclass(frozen=True, slots=True)
class AdaPrune:
    """min over Ŵ of |Y - (S*Ŵ) X|² by Adam, mask S fixed, starting from mean-absorbed weights.

    The gradient (Ŵ H - Y Xᵀ) is exact over all calibration data, so nothing is sampled. Cost R D² per step.
    Use :class:`LeastSquares` instead, which is exact and cheaper; this is here to compare with the
    literature.
    Source: Hubara et al., "Accelerated Sparse Neural Training", NeurIPS 2021, section 4 and its code, with these
    repairs: any pattern, groups without a kept weight absorb nothing (no NaN), both learning rates are used.

    Attributes:
        steps: Adam steps (the paper's code: 1000).
        rate: learning rate of the weights.
        bias_rate: learning rate of the bias.
        absorb_mean: add the mean of each group's pruned weights to its kept ones before the first step.
    """

    steps: int = 1000
    rate: float = 1e-3
    bias_rate: float = 1e-2
    absorb_mean: bool = True

    chooses_mask = False
    needs_data = True

    def __call__(self, problem: LayerProblem) -> Solution:
        """Mask by the scores, then descend."""
        projection = problem.project(problem.score())
        mask = projection.mask.to(torch.float32)
        weights = problem.rows.float() * mask
        if self.absorb_mean:
            weights = _absorbed(problem, mask)
        statistics = problem.statistics if problem.statistics is not None else problem.moments
        count = statistics.count.clamp_min(1.0)[:, None, None]
        gram, cross = (statistics.gram / count).float(), (statistics.cross / count).float()
        mean_x, mean_y = (
            (statistics.input_sum / count[:, 0]).float(),
            (statistics.output_sum / count[:, 0]).float(),
        )
        bias = torch.zeros_like(mean_y)
        weights.requires_grad_(True)
        bias.requires_grad_(problem.fit_bias)
        rates = [{"params": [weights], "lr": self.rate}, {"params": [bias], "lr": self.bias_rate}]
        optimizer = torch.optim.Adam(rates if problem.fit_bias else rates[:1])
        for _ in range(self.steps):
            with torch.no_grad():
                error_mean = (weights @ mean_x[:, :, None]).squeeze(2) - mean_y
                weights.grad = (weights @ gram - cross + bias[:, :, None] * mean_x[:, None, :]) * mask
                bias.grad = error_mean + bias if problem.fit_bias else None
            optimizer.step()
        rows = weights.detach().double() * projection.mask
        return Solution(rows, projection, bias.detach().double() if problem.fit_bias else None)


def _absorbed(problem: LayerProblem, mask: Tensor) -> Tensor:
    """Masked weights plus, in each group of a row, the pruned sum divided by the number kept."""
    weights = problem.rows.float()
    result = weights * mask
    whole = [(0, weights.shape[2])]
    for first, last in whole if isinstance(problem.pattern, Unstructured) else problem.column_blocks():
        kept = mask[..., first:last]
        lost = (weights[..., first:last] * (1 - kept)).sum(2, keepdim=True)
        result[..., first:last] += kept * lost / kept.sum(2, keepdim=True).clamp_min(1.0)
    return result
