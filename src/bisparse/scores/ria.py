"""Relative importance and activations."""

from __future__ import annotations

from torch import Tensor

from bisparse.scores.statistics import LayerStatistics

__all__ = ["ria"]


def ria(rows: Tensor, statistics: LayerStatistics, power: float = 0.5) -> Tensor:
    """(|W_ij| / sum of row i + |W_ij| / sum of column j) * |X_j|^power.

    Relative to its row and its column, so that no whole channel is lost.
    Source: Zhang et al., "Plug-and-Play: An Efficient Post-training Pruning Method for LLMs", ICLR 2024.

    Args:
        rows: (G, R, D) weight.
        statistics: of the layer's inputs.
        power: exponent of the input norms.

    Returns:
        (G, R, D) non-negative scores.
    """
    size = rows.abs()
    tiny = 1e-30
    relative = size / size.sum(2, keepdim=True).clamp_min(tiny)
    relative = relative + size / size.sum(1, keepdim=True).clamp_min(tiny)
    return relative * statistics.input_norm()[:, None, :].pow(power).to(rows)
