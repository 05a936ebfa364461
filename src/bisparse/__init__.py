"""bisparse: neural networks that are sparse in both directions.

Exact N:M and transposable N:M masks with proof, and what is built on them. Names are imported when they are first
used, so that ``import bisparse`` and ``bisparse --help`` do not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bisparse.acceleration.entry import Accelerated, accelerate, accelerate_
    from bisparse.acceleration.report import AccelerateReport
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
    from bisparse.export.dense import to_dense
    from bisparse.export.semi_structured import to_semi_structured
    from bisparse.files.inspection import inspect_file
    from bisparse.files.packed.files import pack_file, unpack_file
    from bisparse.files.packed.load import load_packed, load_packed_
    from bisparse.files.packed.report import PackReport
    from bisparse.files.packed.save import save_packed
    from bisparse.files.pruning import prune_file
    from bisparse.filters.prune import prune_filters, prune_filters_
    from bisparse.filters.report import FilterReport
    from bisparse.kernel_theory.callback import SpectrumCallback
    from bisparse.kernel_theory.features import feature_kernel
    from bisparse.kernel_theory.gradient_kernel import gradient_kernel
    from bisparse.kernel_theory.jacobian_scores import jacobian_scores
    from bisparse.kernel_theory.mask_quality import mask_quality
    from bisparse.kernel_theory.regression import KernelRegression
    from bisparse.kernel_theory.report import KernelReport, kernel_report
    from bisparse.kernel_theory.tracker import SpectrumTracker
    from bisparse.masks.result import Duals, MaskResult
    from bisparse.masks.solve import solve_mask
    from bisparse.masks.verify import Verification, verify_mask
    from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern
    from bisparse.train.sparsifier import Sparsifier
    from bisparse.train.suggest import suggest_patterns

__version__ = "0.1.0"

_HOME = {
    "NM": "bisparse.pattern",
    "AccelerateReport": "bisparse.acceleration.report",
    "Accelerated": "bisparse.acceleration.entry",
    "Duals": "bisparse.masks.result",
    "FilterReport": "bisparse.filters.report",
    "KernelRegression": "bisparse.kernel_theory.regression",
    "KernelReport": "bisparse.kernel_theory.report",
    "MaskDiversity": "bisparse.diversity",
    "MaskResult": "bisparse.masks.result",
    "PackReport": "bisparse.files.packed.report",
    "Pattern": "bisparse.pattern",
    "PruneReport": "bisparse.compress.report",
    "Pruned": "bisparse.compress.prune",
    "Sparsifier": "bisparse.train.sparsifier",
    "SpectrumCallback": "bisparse.kernel_theory.callback",
    "SpectrumTracker": "bisparse.kernel_theory.tracker",
    "TransposableNM": "bisparse.pattern",
    "Unstructured": "bisparse.pattern",
    "Verification": "bisparse.masks.verify",
    "accelerate": "bisparse.acceleration.entry",
    "accelerate_": "bisparse.acceleration.entry",
    "choose_keep": "bisparse.compress.relax",
    "feature_kernel": "bisparse.kernel_theory.features",
    "fit_nm": "bisparse.compress.fit_nm",
    "fit_nm_": "bisparse.compress.fit_nm",
    "gradient_kernel": "bisparse.kernel_theory.gradient_kernel",
    "inspect_file": "bisparse.files.inspection",
    "jacobian_scores": "bisparse.kernel_theory.jacobian_scores",
    "kernel_report": "bisparse.kernel_theory.report",
    "load_packed": "bisparse.files.packed.load",
    "load_packed_": "bisparse.files.packed.load",
    "mask_diversity": "bisparse.diversity",
    "mask_quality": "bisparse.kernel_theory.mask_quality",
    "pack_file": "bisparse.files.packed.files",
    "paper_transposable_diversity": "bisparse.diversity",
    "parse_pattern": "bisparse.pattern",
    "prune": "bisparse.compress.prune",
    "prune_": "bisparse.compress.prune",
    "prune_file": "bisparse.files.pruning",
    "prune_filters": "bisparse.filters.prune",
    "prune_filters_": "bisparse.filters.prune",
    "relax_probability": "bisparse.compress.relax",
    "save_packed": "bisparse.files.packed.save",
    "sequential_diversity": "bisparse.diversity",
    "solve_mask": "bisparse.masks.solve",
    "suggest_patterns": "bisparse.train.suggest",
    "to_dense": "bisparse.export.dense",
    "to_semi_structured": "bisparse.export.semi_structured",
    "unpack_file": "bisparse.files.packed.files",
    "verify_mask": "bisparse.masks.verify",
}

__all__ = [
    "NM",
    "AccelerateReport",
    "Accelerated",
    "Duals",
    "FilterReport",
    "KernelRegression",
    "KernelReport",
    "MaskDiversity",
    "MaskResult",
    "PackReport",
    "Pattern",
    "PruneReport",
    "Pruned",
    "Sparsifier",
    "SpectrumCallback",
    "SpectrumTracker",
    "TransposableNM",
    "Unstructured",
    "Verification",
    "accelerate",
    "accelerate_",
    "choose_keep",
    "feature_kernel",
    "fit_nm",
    "fit_nm_",
    "gradient_kernel",
    "inspect_file",
    "jacobian_scores",
    "kernel_report",
    "load_packed",
    "load_packed_",
    "mask_diversity",
    "mask_quality",
    "pack_file",
    "paper_transposable_diversity",
    "parse_pattern",
    "prune",
    "prune_",
    "prune_file",
    "prune_filters",
    "prune_filters_",
    "relax_probability",
    "save_packed",
    "sequential_diversity",
    "solve_mask",
    "suggest_patterns",
    "to_dense",
    "to_semi_structured",
    "unpack_file",
    "verify_mask",
]


def __getattr__(name: str) -> object:
    if name == "nn":
        return import_module("bisparse.nn")
    if name not in _HOME:
        raise AttributeError(f"module 'bisparse' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
