"""Pretrained to sparse, with little or no training."""

from __future__ import annotations

from bisparse.compress.batch_norm import fold_batch_norm_
from bisparse.compress.distill import Distill
from bisparse.compress.prune import Pruned, prune, prune_
from bisparse.compress.reconstruct import (
    AdaPrune,
    Alps,
    BiasCorrection,
    LeastSquares,
    NoReconstruction,
    SparseGPT,
)
from bisparse.compress.report import LayerReport, PruneReport

__all__ = [
    "AdaPrune",
    "Alps",
    "BiasCorrection",
    "Distill",
    "LayerReport",
    "LeastSquares",
    "NoReconstruction",
    "PruneReport",
    "Pruned",
    "SparseGPT",
    "fold_batch_norm_",
    "prune",
    "prune_",
]
