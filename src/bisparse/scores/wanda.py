"""Weights times input norms."""

from __future__ import annotations

from torch import Tensor

from bisparse.scores.statistics import LayerStatistics

__all__ = ["wanda"]


def wanda(rows: Tensor, statistics: LayerStatistics) -> Tensor:
    """|W_ij| * |X_j|: the output change when one weight goes and no other moves.

    Cheap (only the diagonal of the Hessian); good for transformers, whose inputs have a few large features.
    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024.

    Args:
        rows: (G, R, D) weight.
        statistics: of the layer's inputs.

    Returns:
        (G, R, D) non-negative scores.
    """
    return rows.abs() * statistics.input_norm()[:, None, :].to(rows)
