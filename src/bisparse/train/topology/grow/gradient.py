"""Grow where the loss would fall fastest: at the largest gradients, or at their largest averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bisparse.train.topology.grow.grow import Grow
from bisparse.train.topology.view import View

__all__ = ["Gradient", "Momentum"]


@dataclass(frozen=True)
class Gradient(Grow):
    """Score |dL/dw| of the step before the refresh. What was just dropped may come back, and keeps its value then.

    Source: Evci et al. 2020, RigL (arXiv 1911.11134).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def scores(self, view: View) -> Tensor:
        """|g|."""
        assert view.gradient is not None
        return view.gradient


@dataclass(frozen=True)
class Momentum(Grow):
    """Score |m|, where m is a moving average of the dense gradient over all steps.

    Source: Dettmers and Zettlemoyer 2019, sparse networks from scratch (arXiv 1907.04840).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})

    def scores(self, view: View) -> Tensor:
        """|m|."""
        assert view.momentum is not None
        return view.momentum.abs()
