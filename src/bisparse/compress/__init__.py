"""Pretrained to sparse, with little or no training."""

from __future__ import annotations

from bisparse.compress.batch_norm import fold_batch_norm_
from bisparse.compress.distill import Distill
from bisparse.compress.fit_nm import fit_nm, fit_nm_
from bisparse.compress.prune import Pruned, prune, prune_
from bisparse.compress.reconstruct import (
    AdaPrune,
    Alps,
    BiasCorrection,
    LeastSquares,
    NoReconstruction,
    SparseGPT,
)
from bisparse.compress.relax import choose_keep, relax_probability
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
    "choose_keep",
    "fit_nm",
    "fit_nm_",
    "fold_batch_norm_",
    "prune",
    "prune_",
    "relax_probability",
]
