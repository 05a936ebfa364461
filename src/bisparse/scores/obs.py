"""Optimal-brain-surgeon saliency."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.scores.statistics import LayerStatistics

__all__ = ["obs"]


def obs(rows: Tensor, statistics: LayerStatistics, damping: float = 1e-2) -> Tensor:
    """w² / (H⁻¹)_jj: the output error when one weight goes and all others of its row are re-fitted.

    Cost D³ per group for the inverse. The right score when a reconstruction follows.
    Source: Hassibi and Stork 1993; as in SparseGPT (Frantar and Alistarh, ICML 2023).

    Args:
        rows: (G, R, D) weight.
        statistics: of the layer's inputs.
        damping: share of the mean of H's diagonal that is added to it.

    Returns:
        (G, R, D) non-negative scores.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(statistics.hessian(damping)))
    return (rows.double().square() / inverse.diagonal(dim1=-2, dim2=-1)[:, None, :]).to(rows.dtype)
