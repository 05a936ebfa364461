"""One layer to be compressed: its weight, what calibration says about it, and which masks are allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bisparse.masks.solve import solve_mask
from bisparse.pattern import Pattern, Unstructured
from bisparse.scores import LayerStatistics
from bisparse.weights import Layout, matrices_as_rows, rows_as_matrices

__all__ = ["LayerProblem", "Projection", "Solution"]

_LOG = logging.getLogger(__name__)
_LEAST_DAMPING = 1e-8  # of a singular Hessian: above the rounding of its float64 sums
_FREE_COLUMNS = 128  # column block for patterns without blocks, as in SparseGPT


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A mask in the (G, R, D) view and its proven optimality gap."""

    mask: Tensor
    gap: float


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A compressed layer.

    Attributes:
        rows: (G, R, D), zero outside the mask.
        projection: the mask.
        bias: (G, R), change of the bias; ``None`` = unchanged.
    """

    rows: Tensor
    projection: Projection
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """Minimise |Y - Ŵ X - b|² over weights Ŵ that are zero outside an allowed mask.

    Attributes:
        rows: (G, R, D) float64, the dense weight.
        statistics: second moments of X (inputs, from the pruned network when sequential) and Y (the dense
            network's outputs without bias); ``None`` without calibration data.
        pattern: which masks are allowed.
        layout, shape: of the weight tensor, to cut rows into the matrices that tiles live in.
        score: computes the (G, R, D) scores that the user chose.
        fit_bias: whether the layer has a bias that may move.
        damping: share of the mean of the Hessian's diagonal that is added to it; the minimiser is drawn
            towards the dense weight, so that dead inputs keep their values instead of making the problem
            singular.
    """

    rows: Tensor
    statistics: LayerStatistics | None
    pattern: Pattern
    layout: Layout
    shape: tuple[int, ...]
    score: Callable[[], Tensor]
    fit_bias: bool = False
    damping: float = 1e-4
    name: str = ""
    given_mask: Tensor | None = None

    def with_damping(self, damping: float | None) -> LayerProblem:
        """The same problem with another damping; ``None`` changes nothing."""
        return self if damping is None else replace(self, damping=damping)

    def project(self, scores: Tensor) -> Projection:
        """The allowed mask of the largest sum of (G, R, D) non-negative scores, exact for every pattern."""
        if self.given_mask is not None:
            return Projection(self.given_mask, 0.0)
        result = solve_mask(rows_as_matrices(scores, self.layout, self.shape).float(), self.pattern)
        return Projection(matrices_as_rows(result.mask, self.layout, self.shape), result.gap)

    def project_columns(self, scores: Tensor, first: int, last: int) -> Projection:
        """The same for one of the :meth:`column_blocks`: (G, R, last - first) scores and mask."""
        if self.given_mask is not None:
            return Projection(self.given_mask[..., first:last], 0.0)
        result = solve_mask(scores.float(), self.pattern)
        return Projection(result.mask, result.gap)

    @cached_property
    def moments(self) -> LayerStatistics:
        """The statistics that the weights are fitted to: about the means where a bias absorbs them.

        Raises:
            ValueError: there are none.
        """
        if self.statistics is None:
            raise ValueError(f"this reconstruction needs calibration data that reach {self.name}")
        return self.statistics.centred() if self.fit_bias else self.statistics

    @cached_property
    def hessian(self) -> Tensor:
        """(G, D, D), damped, and positive definite.

        Inputs that are always zero, equal or constant make it singular where the damping is too small for the
        rounding of the sums: the damping is then raised tenfold until a Cholesky factorisation succeeds.

        Raises:
            ValueError: no damping up to 1e6 suffices (the sums are not finite).
        """
        return self._definite[0]

    @property
    def hessian_factor(self) -> Tensor:
        """(G, D, D), lower Cholesky factor of :attr:`hessian`."""
        return self._definite[1]

    @cached_property
    def _definite(self) -> tuple[Tensor, Tensor]:
        """The damped Hessian and its lower Cholesky factor."""
        damping = self.damping
        while damping <= 1e6:
            hessian = self.moments.hessian(damping)
            factor, failed = torch.linalg.cholesky_ex(hessian)
            if not bool(failed.any()):
                if damping != self.damping:
                    _LOG.warning("%s: singular Hessian, damping raised to %g", self.name, damping)
                return hessian, factor
            damping = max(10.0 * damping, _LEAST_DAMPING)
        raise ValueError(f"{self.name}: its Hessian cannot be factorised; check the calibration data")

    @cached_property
    def target(self) -> Tensor:
        """(G, R, D), right-hand side: the minimiser Ŵ without a mask solves Ŵ hessian = target."""
        return self.moments.cross + self.rows @ (self.hessian - self.moments.gram)

    @cached_property
    def optimum(self) -> Tensor:
        """(G, R, D): the minimiser without a mask; the dense weight where inputs are the dense network's."""
        return torch.cholesky_solve(self.target.mT, self.hessian_factor).mT

    def column_blocks(self) -> list[tuple[int, int]]:
        """Ranges of columns that hold one column of tiles each, never across kernel positions."""
        columns = self.rows.shape[2]
        width = rows_as_matrices(self.rows, self.layout, self.shape).shape[2]
        step = _FREE_COLUMNS if isinstance(self.pattern, Unstructured) else self.pattern.block
        return [
            (start + first, start + min(first + step, width))
            for start in range(0, columns, width)
            for first in range(0, width, step)
        ]

    def solution(self, rows: Tensor, projection: Projection) -> Solution:
        """Complete fitted rows with the bias that absorbs the difference of means."""
        statistics = self.statistics
        if not self.fit_bias or statistics is None:
            return Solution(rows, projection)
        count = statistics.count.clamp_min(1.0)[:, None]
        mean_error = statistics.output_sum - (rows @ statistics.input_sum[:, :, None]).squeeze(2)
        return Solution(rows, projection, mean_error / count)
