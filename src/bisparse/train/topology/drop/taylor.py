"""Drop what the loss would miss least, to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bisparse.train.topology.drop.drop import Drop
from bisparse.train.topology.view import View

__all__ = ["MagnitudeGradient", "Taylor"]


@dataclass(frozen=True)
class Taylor(Drop):
    """Score (w * g)**2, the squared change of the loss to first order (Molchanov et al. 2019, arXiv 1906.10771)."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def scores(self, view: View) -> Tensor:
        """(w * g)**2."""
        assert view.gradient is not None
        return (view.values * view.gradient).square()


@dataclass(frozen=True)
class MagnitudeGradient(Drop):
    """Score |w| + factor * |g|, the score of MEST (Yuan et al. 2021, arXiv 2110.14032).

    Attributes:
        factor: of the gradient, 0 or more.

    Raises:
        ValueError: a negative factor.
    """

    factor: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def __post_init__(self) -> None:
        if self.factor < 0.0:
            raise ValueError(f"factor={self.factor}: 0 or more")

    def scores(self, view: View) -> Tensor:
        """|w| + factor * |g|."""
        assert view.gradient is not None
        return view.values.abs().add(view.gradient, alpha=self.factor)
