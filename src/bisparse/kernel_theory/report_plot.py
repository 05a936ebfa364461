"""The picture of a kernel report."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.kernel_theory.numbers import KernelNumbers
from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bisparse.kernel_theory.report import KernelReport

__all__ = ["plot_report"]


def plot_report(report: KernelReport, path: Path) -> Path:
    """Eigenvalues of H and K, and the share of y that their leading eigenvectors hold.

    Raises:
        ImportError: matplotlib is missing.
    """
    kernels = [numbers for numbers in (report.H, report.K) if numbers is not None]
    return save_figure(
        path, (10.0, 4.0), [lambda axes: _values(axes, kernels), lambda axes: _shares(axes, kernels)]
    )


def _values(axes: Axes, kernels: list[KernelNumbers]) -> None:
    for numbers, colour in zip(kernels, _colours(kernels), strict=True):
        shown = numbers.eigenvalues[: numbers.rank]
        label = f"{numbers.name}: rank {numbers.rank}, slope {numbers.decay:.2f}"
        axes.loglog(range(1, len(shown) + 1), shown, ".-", color=colour, label=label)
    axes.set_xlabel("index")
    axes.set_ylabel("eigenvalue")
    axes.set_title("Spectra", loc="left", fontsize=10)
    axes.grid(color=PALE)
    axes.legend()


def _shares(axes: Axes, kernels: list[KernelNumbers]) -> None:
    for numbers, colour in zip(kernels, _colours(kernels), strict=True):
        held = list(itertools.accumulate(numbers.label_shares[: numbers.rank]))
        axes.semilogx(range(1, len(held) + 1), held, ".-", color=colour, label=numbers.name)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("leading eigenvectors")
    axes.set_title("Share of |y|² that they hold", loc="left", fontsize=10)
    axes.grid(color=PALE)
    axes.legend()


def _colours(kernels: list[KernelNumbers]) -> list[str]:
    return [INK if numbers.name == "H" else ACCENT for numbers in kernels]
