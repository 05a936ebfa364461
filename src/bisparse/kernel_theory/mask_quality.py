"""How good masks are for a task, before any training: what K_M can represent and how it is aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.gradient_kernel import kernel_of
from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY, column_squares
from bisparse.kernel_theory.masked import resolve_masks
from bisparse.kernel_theory.network import Network, Outputs, prepare
from bisparse.kernel_theory.spectrum import alignment, spectrum
from bisparse.kernel_theory.targets import as_targets
from bisparse.report import Column, Table, TableReport

__all__ = ["MaskQuality", "mask_quality"]


@dataclass(frozen=True, slots=True)
class MaskQuality(TableReport):
    """One set of masks on one network and data set.

    Attributes:
        kept: entries of the masked weights that are kept.
        density: their share.
        kept_magnitude: share of the sum of |W| over the masked weights.
        kept_trace: trace of K_M over trace of K, both at W*M: share of the derivatives that the masks let through.
        rank: of K_M.
        size: rows of K_M.
        effective_dimension: tr K_M (K_M + ridge)⁻¹.
        y_outside: share of |y|² outside the range of K_M: what no training with these masks can fit, as long as
            the kernel stays as it is.
        y_left: share of |y|² that kernel ridge regression with K_M leaves: a soft form of the same.
        alignment: centred alignment of K_M, summed over outputs, with y yᵀ.
    """

    kept: int
    density: float
    kept_magnitude: float
    kept_trace: float
    rank: int
    size: int
    effective_dimension: float
    y_outside: float
    y_left: float
    alignment: float

    def to_table(self) -> Table:
        """One line per number."""
        rows = [{"name": name, "value": value} for name, value in self.to_dict().items()]
        return Table(
            "masks judged by their kernel", (Column("name", ""), Column("value", "", "number")), rows
        )


def mask_quality(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    X: Tensor,
    y: Tensor,
    *,
    ridge: float = 0.01,
    outputs: Outputs = "full",
    memory: int = DEFAULT_MEMORY,
    dtype: torch.dtype | None = torch.float64,
) -> MaskQuality:
    """Judge masks without training.

    Args:
        model: the network that is to be masked, with its dense weights; left as it is.
        masks: parameter (or module) names to masks, non-zero = kept.
        X: (n, ...) examples; n C up to a few thousand.
        y: (n,) or (n, C) targets or class numbers (one-hot).
        ridge: of ``effective_dimension`` and ``y_left``, relative to the mean eigenvalue of K_M.
        outputs: ``"full"``, or ``"trace"`` to sum over outputs: C² times cheaper, and blind to how outputs share.
        memory: bytes that derivatives may take.
        dtype: of the computation.

    Raises:
        ValueError: no masks, masks or targets that do not fit, or what ``prepare`` refuses.

    Cost: two kernels and (n C)³. Source: Dou and Liang 2020 with parameters restricted to kept ones.
    """
    given = resolve_masks(model, masks)
    if not given:
        raise ValueError("masks is empty: name at least one weight")
    if outputs not in ("full", "trace"):
        raise ValueError(f"outputs={outputs!r}: use 'full' or 'trace'")
    network = prepare(model, X, masks=given, dtype=dtype)
    kernel = kernel_of(network, X, outputs=outputs, memory=memory)
    targets = as_targets(torch.as_tensor(y), network.predict(X))
    found, full = spectrum(kernel), outputs == "full"
    labels = targets.reshape(-1, 1) if full else targets
    scaled = ridge * found.trace / len(found.values)
    left = scaled * found.solve(labels, scaled) if scaled > 0 else labels
    kept, entries = (
        sum(int(n) for n in counts)
        for counts in zip(*((m.sum(), m.numel()) for m in given.values()), strict=True)
    )
    return MaskQuality(
        kept=kept,
        density=kept / entries,
        kept_magnitude=_kept_magnitude(model, given),
        kept_trace=found.trace / max(_dense_trace(network, X, memory), 1e-300),
        rank=found.rank,
        size=len(kernel),
        effective_dimension=found.effective_dimension(scaled),
        y_outside=1.0 - found.inside(labels),
        y_left=float(left.square().sum()) / max(float(labels.square().sum()), 1e-300),
        alignment=alignment(_summed(kernel, len(targets)) if full else kernel, targets),
    )


def _summed(kernel: Tensor, count: int) -> Tensor:
    """All pairs of outputs -> the sum over outputs."""
    outputs = len(kernel) // count
    return kernel.reshape(count, outputs, count, outputs).diagonal(dim1=1, dim2=3).sum(-1)


def _dense_trace(network: Network, X: Tensor, memory: int) -> float:
    """Trace of K at the masked weights, over all entries."""
    dense = prepare(network.module, params=list(network.parameters))
    return sum(float(part.sum()) for part in column_squares(dense, X, "trace", memory).values())


def _kept_magnitude(model: nn.Module, masks: Mapping[str, Tensor]) -> float:
    parameters = dict(model.named_parameters())
    sizes = {name: parameters[name].detach().abs().double() for name in masks}
    total = sum(float(size.sum()) for size in sizes.values())
    kept = sum(float((sizes[name] * mask.to(sizes[name])).sum()) for name, mask in masks.items())
    return kept / total if total > 0 else 1.0
