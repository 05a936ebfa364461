"""One look at a kernel during training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from bisparse.kernel_theory.spectrum import alignment, cka, spectrum

__all__ = ["Snapshot", "take_snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A kernel at one step.

    Attributes:
        step: optimizer steps done.
        eigenvalues: the largest ones, from the largest down.
        trace: sum of all eigenvalues.
        rank: eigenvalues that are not zero.
        stable_rank: trace over largest eigenvalue.
        decay: slope of log eigenvalue against log index.
        alignment: centred alignment with y yᵀ; NaN without targets.
        cka_start: centred alignment with the first snapshot's kernel.
        cka_last: the same with the last snapshot's; NaN at the first.
        velocity: |K_t - K_s| / |K_s| per step since the last snapshot s; NaN at the first.
        flip_rate: share of mask entries that changed since the last snapshot, summed over refreshes; ``None``
            without a sparsifier.
        sad: their number.
    """

    step: int
    eigenvalues: tuple[float, ...]
    trace: float
    rank: int
    stable_rank: float
    decay: float
    alignment: float
    cka_start: float
    cka_last: float
    velocity: float
    flip_rate: float | None = None
    sad: float | None = None

    def row(self) -> dict[str, Any]:
        """Flat numbers, for a table or a log; NaN as ``None``."""
        content = asdict(self)
        content["largest"] = self.eigenvalues[0] if self.eigenvalues else 0.0
        flat = {key: value for key, value in content.items() if key != "eigenvalues"}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in flat.items()}


def take_snapshot(
    step: int,
    kernel: Tensor,
    *,
    start: Tensor,
    last: tuple[int, Tensor] | None,
    targets: Tensor | None,
    top: int,
    flips: dict[str, float] | None = None,
) -> Snapshot:
    """Measure a kernel (n, n) against the first and the last one; cost n³.

    Args:
        step: optimizer steps done.
        kernel: now.
        start: at the first snapshot.
        last: step and kernel of the last snapshot.
        targets: (n, C).
        top: eigenvalues to keep.
        flips: ``flip_rate`` and ``sad`` since then.
    """
    found = spectrum(kernel)
    velocity = math.nan
    if last is not None:
        change = float((kernel - last[1]).norm()) / max(float(last[1].norm()), 1e-300)
        velocity = change / max(step - last[0], 1)
    flips = flips or {}
    return Snapshot(
        step=step,
        eigenvalues=tuple(found.values[:top].tolist()),
        trace=found.trace,
        rank=found.rank,
        stable_rank=found.stable_rank,
        decay=found.decay,
        alignment=math.nan if targets is None else alignment(kernel, targets.to(kernel)),
        cka_start=cka(kernel, start),
        cka_last=math.nan if last is None else cka(kernel, last[1]),
        velocity=velocity,
        flip_rate=flips.get("flip_rate"),
        sad=flips.get("sad"),
    )
