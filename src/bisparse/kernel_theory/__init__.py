"""What a network learned, as a kernel: gradient and feature kernels, the theorems as checks, and masks judged by
them.
"""

from __future__ import annotations

from bisparse.kernel_theory.callback import SpectrumCallback
from bisparse.kernel_theory.features import feature_kernel
from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.homogeneity import Homogeneity, homogeneity
from bisparse.kernel_theory.identities import Statement
from bisparse.kernel_theory.jacobian_scores import jacobian_scores
from bisparse.kernel_theory.mask_quality import MaskQuality, mask_quality
from bisparse.kernel_theory.regression import KernelRegression, network_kernel_regression
from bisparse.kernel_theory.report import KernelReport, kernel_report
from bisparse.kernel_theory.snapshot import Snapshot
from bisparse.kernel_theory.spectrum import Spectrum, alignment, cka, spectrum
from bisparse.kernel_theory.stationary import fit_stationary_
from bisparse.kernel_theory.tracker import SpectrumReport, SpectrumTracker

__all__ = [
    "Homogeneity",
    "KernelRegression",
    "KernelReport",
    "MaskQuality",
    "Snapshot",
    "Spectrum",
    "SpectrumCallback",
    "SpectrumReport",
    "SpectrumTracker",
    "Statement",
    "alignment",
    "cka",
    "feature_kernel",
    "fit_stationary_",
    "gradient_kernel",
    "homogeneity",
    "jacobian_scores",
    "kernel_report",
    "mask_quality",
    "network_kernel_regression",
    "spectrum",
]
