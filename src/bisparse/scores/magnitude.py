"""Scores from the weights alone."""

from __future__ import annotations

from torch import Tensor

from bisparse.scores.statistics import LayerStatistics

__all__ = ["magnitude"]


def magnitude(rows: Tensor, statistics: LayerStatistics | None) -> Tensor:  # noqa: ARG001
    """|W|: needs no data. Keeps most of the weight's absolute sum.

    Args:
        rows: (G, R, D) weight.
        statistics: not used.

    Returns:
        (G, R, D) non-negative scores.
    """
    return rows.abs()
