"""Drop the smallest magnitudes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bisparse.train.topology.drop.drop import Drop
from bisparse.train.topology.view import View

__all__ = ["Magnitude"]


@dataclass(frozen=True)
class Magnitude(Drop):
    """Score |w|. Source: Evci et al. 2020, RigL (arXiv 1911.11134)."""

    def scores(self, view: View) -> Tensor:
        """|w|."""
        return view.values.abs()
