"""What a network learned, as a kernel: gradient and feature kernels, the theorems as checks, and masks judged by
them.
"""

from __future__ import annotations

from bisparse.kernel_theory.features import feature_kernel
from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.homogeneity import Homogeneity, homogeneity
from bisparse.kernel_theory.identities import Statement
from bisparse.kernel_theory.regression import KernelRegression, network_kernel_regression
from bisparse.kernel_theory.report import KernelReport, kernel_report
from bisparse.kernel_theory.spectrum import Spectrum, alignment, cka, spectrum
from bisparse.kernel_theory.stationary import fit_stationary_

__all__ = [
    "Homogeneity",
    "KernelRegression",
    "KernelReport",
    "Spectrum",
    "Statement",
    "alignment",
    "cka",
    "feature_kernel",
    "fit_stationary_",
    "gradient_kernel",
    "homogeneity",
    "kernel_report",
    "network_kernel_regression",
    "spectrum",
]
