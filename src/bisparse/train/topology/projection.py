"""The mask that keeps the largest magnitudes: the nearest allowed weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.masks.result import Duals
from bisparse.masks.solve import solve_mask
from bisparse.pattern import Pattern, TransposableNM
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.causes import forced_flips
from bisparse.train.topology.topology import Chosen, Topology
from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["Projection"]


@dataclass(frozen=True)
class Projection(Topology):
    """E maximises the sum of |W| that is kept, among all masks that the pattern allows.

    Attributes:
        method: a method of :func:`bisparse.solve_mask`.
        hysteresis: bonus for entries that are kept already: their scores count 1 + ``hysteresis`` times.
        average: weight of the past in a moving average of W, from which masks are then learnt instead of
            from W itself (``0.99`` looks back about 100 steps); ``None`` = W.
        warm: start from the duals of the last solve.

    Raises:
        ValueError: a negative ``hysteresis``, or ``average`` outside (0, 1).
    """

    method: str = "exact"
    hysteresis: float = 0.0
    average: float | None = None
    warm: bool = True

    def __post_init__(self) -> None:
        if self.hysteresis < 0.0:
            raise ValueError(f"hysteresis={self.hysteresis}: a bonus for kept entries is 0 or more")
        if self.average is not None and not 0.0 < self.average < 1.0:
            raise ValueError(f"average={self.average}: the weight of the past lies strictly between 0 and 1")

    def observe_(self, weight: MaskedWeight) -> None:
        """Move the average."""
        if self.average is None:
            return
        if weight.average is None:
            weight.average = weight.values.clone()
        else:
            weight.average.lerp_(weight.values, 1.0 - self.average)

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        """Solve on this process's part where no tile is cut, else on the gathered weight."""
        if pattern is None:
            return Chosen(None)
        values = weight.values if weight.average is None else weight.average
        if self.hysteresis and weight.refreshes:
            values = torch.where(weight.mask, values * (1.0 + self.hysteresis), values)
        sharding, layout = weight.sharding, weight.layout
        clean = layout if sharding is None else sharding.local_layout(layout, pattern)
        if sharding is None or clean is not None:
            return self.solve(weight, values, weight.mask, pattern, clean or layout)
        old = sharding.gather(weight.mask.byte()).bool()
        whole = self.solve(weight, sharding.gather(values), old, pattern, layout)
        mask = None if whole.mask is None else sharding.scatter(whole.mask)
        forced = None if whole.forced is None else whole.forced / sharding.parts
        return Chosen(mask, whole.duals, forced)

    def solve(
        self, weight: MaskedWeight, values: Tensor, old: Tensor, pattern: Pattern, layout: Layout
    ) -> Chosen:
        """The best mask for the magnitudes of ``values``, an own part of the weight that is read as ``layout`` says."""
        if values.numel() == 0:
            return Chosen(torch.ones_like(values, dtype=torch.bool), forced=0.0)
        matrices = as_matrices(values, layout)
        transposable = isinstance(pattern, TransposableNM)
        exact = transposable and self.method == "exact"
        result = solve_mask(
            matrices,
            pattern,
            method=self.method if transposable else "exact",
            magnitude=True,
            warm_start=_warm(weight.duals, matrices, pattern) if exact and self.warm else None,
            return_duals=exact,
        )
        mask = from_matrices(result.mask, layout, values.shape)
        if not isinstance(pattern, TransposableNM):
            return Chosen(mask, result.duals)
        forced = forced_flips(matrices, as_matrices(old, layout), result.mask, pattern)
        return Chosen(mask, result.duals, float(forced))


def _warm(duals: Duals | None, matrices: Tensor, pattern: Pattern) -> Duals | None:
    """Where to start, if the last solve fits this one (a weight may since have been divided otherwise)."""
    if duals is None or not isinstance(pattern, TransposableNM):
        return None
    batch, rows, width = matrices.shape
    return duals if duals.columns.shape == (batch, -(-rows // pattern.block), width) else None
