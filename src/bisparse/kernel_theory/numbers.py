"""One kernel of a report, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bisparse.kernel_theory.evidence import Evidence
from bisparse.kernel_theory.spectrum import Spectrum, alignment

__all__ = ["KernelNumbers", "feature_numbers", "gradient_numbers"]


@dataclass(frozen=True, slots=True)
class KernelNumbers:
    """What is said about one kernel matrix.

    Attributes:
        name: ``"H"``, ``"K"`` or ``"K_M"``.
        size: rows of the matrix.
        rank: eigenvalues that are not zero.
        effective_dimension: tr K (K + ridge)⁻¹ with the ridge of its identity; the rank without a penalty.
        stable_rank: trace over largest eigenvalue.
        trace: sum of the eigenvalues.
        decay: slope of log eigenvalue against log index.
        alignment: centred alignment with y yᵀ.
        y_inside: share of |y|² in the range.
        y_outside: the rest, which can never be fitted.
        residual_outside: share of |r|² in the null space: 1 at a stationary point without penalty.
        eigenvalues: from the largest down.
        label_shares: share of |y|² along each eigenvector, in the same order.
    """

    name: str
    size: int
    rank: int
    effective_dimension: float
    stable_rank: float
    trace: float
    decay: float
    alignment: float
    y_inside: float
    y_outside: float
    residual_outside: float
    eigenvalues: tuple[float, ...]
    label_shares: tuple[float, ...]

    def line(self) -> str:
        """The numbers in one line."""
        return (
            f"{self.name}: rank {self.rank} of {self.size}, effective dimension {self.effective_dimension:.4g}, "
            f"alignment {self.alignment:.4f}, y inside {self.y_inside:.4f}, y outside {self.y_outside:.4f}"
        )


def _numbers(
    name: str, spectrum: Spectrum, ridge: float, kernel: Tensor, targets: Tensor, y: Tensor, residual: Tensor
) -> KernelNumbers:
    inside = spectrum.inside(y)
    shares = (spectrum.vectors.T @ y).reshape(len(y), -1).square().sum(1) / max(
        float(y.square().sum()), 1e-300
    )
    return KernelNumbers(
        name=name,
        size=len(spectrum.values),
        rank=spectrum.rank,
        effective_dimension=spectrum.effective_dimension(ridge),
        stable_rank=spectrum.stable_rank,
        trace=spectrum.trace,
        decay=spectrum.decay,
        alignment=alignment(kernel, targets),
        y_inside=inside,
        y_outside=1.0 - inside,
        residual_outside=1.0 - spectrum.inside(residual),
        eigenvalues=tuple(spectrum.values.tolist()),
        label_shares=tuple(shares.tolist()),
    )


def feature_numbers(evidence: Evidence) -> KernelNumbers | None:
    """Of H; ``None`` where there is no last layer."""
    features = evidence.train.features
    if evidence.H is None or features is None:
        return None
    ridge, y = evidence.count * evidence.penalty, evidence.targets
    return _numbers("H", evidence.H, ridge, features @ features.T, y, y, evidence.residual)


def gradient_numbers(evidence: Evidence) -> KernelNumbers:
    """Of K, or of K_M where there are masks."""
    kernel, y, residual = evidence.train.K, evidence.targets, evidence.residual
    if evidence.full:
        count, outputs = y.shape
        kernel = kernel.reshape(count, outputs, count, outputs).diagonal(dim1=1, dim2=3).sum(-1)
        y, residual = y.reshape(-1, 1), residual.reshape(-1, 1)
    ridge = (evidence.scaling.degree or 1.0) * evidence.count * evidence.penalty
    name = "K_M" if evidence.network.masks else "K"
    return _numbers(name, evidence.K, ridge, kernel, evidence.targets, y, residual)
