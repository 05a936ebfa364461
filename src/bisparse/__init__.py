"""bisparse: neural networks that are sparse in both directions.

Exact N:M and transposable N:M masks with proof, and what is built on them.
"""

from __future__ import annotations

from bisparse.diversity import (
    MaskDiversity,
    mask_diversity,
    paper_transposable_diversity,
    sequential_diversity,
)
from bisparse.masks.result import Duals, MaskResult
from bisparse.masks.solve import solve_mask
from bisparse.masks.verify import Verification, verify_mask
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern

__version__ = "0.1.0"

__all__ = [
    "NM",
    "Duals",
    "MaskDiversity",
    "MaskResult",
    "Pattern",
    "TransposableNM",
    "Unstructured",
    "Verification",
    "mask_diversity",
    "paper_transposable_diversity",
    "parse_pattern",
    "sequential_diversity",
    "solve_mask",
    "verify_mask",
]
