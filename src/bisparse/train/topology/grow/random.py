"""Grow anywhere, all places alike; or first where no weight has ever been."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bisparse.train.topology.grow.grow import Grow
from bisparse.train.topology.view import View

__all__ = ["Random", "RandomUnfired"]


@dataclass(frozen=True)
class Random(Grow):
    """Uniform among entries that had no weight. What was just dropped comes back only where nothing else is free.

    Source: Mocanu et al. 2018, SET.
    """

    def scores(self, view: View) -> Tensor:
        """A random number, plus 1 where there was no weight."""
        return view.random("growth").add_(view.mask.logical_not())


@dataclass(frozen=True)
class RandomUnfired(Grow):
    """Uniform among entries that no mask has kept so far, then among the others: explores as fast as possible.

    Source: Liu et al. 2021, in-time over-parameterisation (arXiv 2102.02887).
    """

    def scores(self, view: View) -> Tensor:
        """A random number, plus 1 where there was no weight, plus 1 where there has never been one."""
        scores = view.random("growth").add_(view.mask.logical_not())
        return scores.add_(view.fired.logical_not())
