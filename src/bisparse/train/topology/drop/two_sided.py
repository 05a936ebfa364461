"""Drop the positive and the negative weights that are nearest to zero, each sign for itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bisparse.pattern import part_of
from bisparse.train.topology.drop.magnitude import Magnitude
from bisparse.train.topology.selection import largest
from bisparse.train.topology.view import View

__all__ = ["TwoSided"]


@dataclass(frozen=True)
class TwoSided(Magnitude):
    """Exactly floor(share * n+) of the n+ positive and floor(share * n-) of the n- negative weights go.

    A kept weight that is exactly 0 counts as positive. The authors' code compares strictly with two
    thresholds, so that ties make it drop more.

    Source: Mocanu et al. 2018, SET (Nature Communications 9, 2383).
    """

    def surviving(self, view: View, share: float) -> Tensor:
        """The mask without the smallest of each sign."""
        scores, negative = self.scores(view), view.values < 0
        kept = []
        for side in (view.mask & ~negative, view.mask & negative):
            count = int(side.sum().item())
            kept.append(largest(scores, side, count - part_of(count, share)))
        return kept[0] | kept[1]
