"""What a grow score is: where new weights are put."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from bisparse.train.topology.view import View

__all__ = ["Grow"]


class Grow:
    """Scores entries that are not kept; the largest become new weights. Override ``scores``.

    Attributes:
        needs: signals that have to be collected: ``"gradient"``, ``"momentum"``.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def scores(self, view: View) -> Tensor:
        """What it is worth to grow each entry: not negative, shaped like the weight."""
        raise NotImplementedError
