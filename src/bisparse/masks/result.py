"""What a mask solver returns: the mask, its worth, and the proof of its optimality."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bisparse.pattern import Pattern

__all__ = ["Duals", "MaskResult"]


@dataclass(frozen=True, slots=True, repr=False)
class Duals:
    """Dual potentials of a transposable mask: the certificate of its optimality.

    For a matrix of R rows and C columns cut into M x M tiles, an entry (i, j) in tile (i // M, j // M) is worth
    keeping when ``scores[i, j] > rows[i, j // M] + columns[i // M, j]``. A feasible mask that keeps exactly such
    entries is optimal, because the transportation polytope is integral (linear-programming duality).

    Attributes:
        rows: (..., R, ceil(C / M)), one potential for each row of each tile.
        columns: (..., ceil(R / M), C), one potential for each column of each tile.
    """

    rows: Tensor
    columns: Tensor

    def __repr__(self) -> str:
        return f"Duals(rows={tuple(self.rows.shape)}, columns={tuple(self.columns.shape)})"


@dataclass(frozen=True, slots=True, repr=False)
class MaskResult:
    """A mask and what is known about it.

    Attributes:
        mask: boolean tensor shaped like the scores, True = kept.
        pattern: the pattern that the mask obeys.
        method: the solver's name, e.g. ``"exact"``.
        objective: sum of the kept scores, in float64.
        bound: proven upper bound of the objective over all allowed masks; ``inf`` where the method proves none.
        seconds: wall time of the whole call.
        rounds: the largest number of alternating sweeps that any tile took; 0 for methods without sweeps.
        repaired_tiles: tiles whose optimum was completed by shortest augmenting paths instead of sweeps.
        duals: the certificate, where it was asked for.
    """

    mask: Tensor
    pattern: Pattern
    method: str
    objective: float
    bound: float
    seconds: float
    rounds: int = 0
    repaired_tiles: int = 0
    duals: Duals | None = None

    def __repr__(self) -> str:
        proof = "proven optimal" if self.gap == 0 else f"gap {self.gap:.1e}"
        return (
            f"MaskResult({self.pattern} by {self.method}, shape {tuple(self.mask.shape)}, "
            f"objective {self.objective:.6g}, {proof}, {self.seconds * 1e3:.3g} ms)"
        )

    @property
    def gap(self) -> float:
        """Proven optimality gap, (bound - objective) / objective; 0 proves the mask optimal, ``inf`` is no proof."""
        difference = self.bound - self.objective
        if difference != difference:  # sums beyond the range of float64 prove nothing
            return float("inf")
        if difference <= 0.0:
            return 0.0
        return difference / self.objective if self.objective > 0.0 else float("inf")

    @property
    def density(self) -> float:
        """Share of the entries that the mask keeps (0 for an empty tensor)."""
        return float(self.mask.sum().item()) / max(self.mask.numel(), 1)
