"""What a drop score is: which kept weights are given up."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from bisparse.pattern import part_of
from bisparse.train.topology.selection import largest
from bisparse.train.topology.view import View

__all__ = ["Drop"]


class Drop:
    """Scores kept weights; the smallest are dropped. Override ``scores``.

    Attributes:
        needs: signals that have to be collected: ``"gradient"``, ``"momentum"``.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def scores(self, view: View) -> Tensor:
        """What it is worth to keep each entry: not negative, shaped like the weight."""
        raise NotImplementedError

    def surviving(self, view: View, share: float) -> Tensor:
        """The mask without its ``floor(share * n)`` smallest scores, where it keeps n entries."""
        count = int(view.mask.sum().item())
        return largest(self.scores(view), view.mask, count - part_of(count, share))
