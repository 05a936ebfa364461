"""bisparse: neural networks that are sparse in both directions.

Exact N:M and transposable N:M masks with proof, and what is built on them. Names are imported when they are first
used, so that ``import bisparse`` and ``bisparse --help`` do not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bisparse.compress.fit_nm import fit_nm, fit_nm_
    from bisparse.compress.prune import Pruned, prune, prune_
    from bisparse.compress.relax import choose_keep, relax_probability
    from bisparse.compress.report import PruneReport
    from bisparse.diversity import (
        MaskDiversity,
        mask_diversity,
        paper_transposable_diversity,
        sequential_diversity,
    )
    from bisparse.files.inspection import inspect_file
    from bisparse.files.pruning import prune_file
    from bisparse.masks.result import Duals, MaskResult
    from bisparse.masks.solve import solve_mask
    from bisparse.masks.verify import Verification, verify_mask
    from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern

__version__ = "0.1.0"

_HOME = {
    "NM": "bisparse.pattern",
    "Duals": "bisparse.masks.result",
    "MaskDiversity": "bisparse.diversity",
    "MaskResult": "bisparse.masks.result",
    "Pattern": "bisparse.pattern",
    "PruneReport": "bisparse.compress.report",
    "Pruned": "bisparse.compress.prune",
    "TransposableNM": "bisparse.pattern",
    "Unstructured": "bisparse.pattern",
    "Verification": "bisparse.masks.verify",
    "choose_keep": "bisparse.compress.relax",
    "fit_nm": "bisparse.compress.fit_nm",
    "fit_nm_": "bisparse.compress.fit_nm",
    "inspect_file": "bisparse.files.inspection",
    "mask_diversity": "bisparse.diversity",
    "paper_transposable_diversity": "bisparse.diversity",
    "parse_pattern": "bisparse.pattern",
    "prune": "bisparse.compress.prune",
    "prune_": "bisparse.compress.prune",
    "prune_file": "bisparse.files.pruning",
    "relax_probability": "bisparse.compress.relax",
    "sequential_diversity": "bisparse.diversity",
    "solve_mask": "bisparse.masks.solve",
    "verify_mask": "bisparse.masks.verify",
}

__all__ = [
    "NM",
    "Duals",
    "MaskDiversity",
    "MaskResult",
    "Pattern",
    "PruneReport",
    "Pruned",
    "TransposableNM",
    "Unstructured",
    "Verification",
    "choose_keep",
    "fit_nm",
    "fit_nm_",
    "inspect_file",
    "mask_diversity",
    "paper_transposable_diversity",
    "parse_pattern",
    "prune",
    "prune_",
    "prune_file",
    "relax_probability",
    "sequential_diversity",
    "solve_mask",
    "verify_mask",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bisparse' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
