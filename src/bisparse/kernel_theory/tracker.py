"""How a kernel moves while its network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.kernel_theory.features import feature_kernel
from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY
from bisparse.kernel_theory.masked import Masks
from bisparse.kernel_theory.snapshot import Snapshot, take_snapshot
from bisparse.report import Column, Table, TableReport, to_plain

__all__ = ["SparseTraining", "SpectrumReport", "SpectrumTracker"]


class SparseTraining(Protocol):
    """What the tracker reads of a :class:`bisparse.Sparsifier`."""

    @property
    def masks(self) -> dict[str, Tensor]:
        """Masks by parameter name."""

    @property
    def history(self) -> list[dict[str, float]]:
        """Totals of every refresh."""


class SpectrumTracker:
    """Takes the kernel of a few fixed examples again and again; works in any training loop.

    Call :meth:`observe` where you want a snapshot, or give :class:`SpectrumCallback` to the trainer. Memory: three
    (n, n) matrices; cost of a snapshot: that of the kernel, and n³.

    Args:
        X: (n, ...) examples, some hundreds.
        y: (n,) or (n, C) targets or class numbers, for the alignment; ``None`` = none.
        kernel: ``"gradient"`` (K, summed over outputs) or ``"feature"`` (H).
        sparsifier: with one, K becomes K_M of its masks, and snapshots say how many entries flipped.
        top: eigenvalues to keep.
        memory: bytes that derivatives may take.
        dtype: of the computation; float32 is enough to see trends.

    Raises:
        ValueError: lengths differ, an unknown kernel, or ``top`` below 1.
    """

    def __init__(
        self,
        X: Tensor,
        y: Tensor | None = None,
        *,
        kernel: Literal["gradient", "feature"] = "gradient",
        sparsifier: SparseTraining | None = None,
        top: int = 10,
        memory: int = DEFAULT_MEMORY,
        dtype: torch.dtype | None = None,
    ) -> None:
        if kernel not in ("gradient", "feature"):
            raise ValueError(f"kernel={kernel!r}: use 'gradient' or 'feature'")
        if top < 1:
            raise ValueError(f"top={top}: keep at least one eigenvalue")
        if y is not None and len(y) != len(X):
            raise ValueError(f"{len(y)} targets for {len(X)} examples: one each")
        self.X, self.kernel, self.sparsifier = X, kernel, sparsifier
        self.targets = None if y is None else _targets(y)
        self.history: list[Snapshot] = []
        self._options: dict[str, Any] = {"top": top, "memory": memory, "dtype": dtype}
        self._start: Tensor | None = None
        self._last: tuple[int, Tensor] | None = None

    def observe(self, model: nn.Module, step: int) -> Snapshot:
        """Take a snapshot; the model is left as it is.

        Args:
            model: as it is now.
            step: optimizer steps done; at least that of the last snapshot.

        Raises:
            ValueError: the steps go back.
        """
        if self._last is not None and step < self._last[0]:
            raise ValueError(
                f"step={step} comes before the last snapshot, {self._last[0]}: a new run needs a new tracker"
            )
        masks = None if self.sparsifier is None else self.sparsifier.masks
        kernel = self._kernel(model, masks)
        start = kernel if self._start is None else self._start
        snapshot = take_snapshot(
            step, kernel, start=start, last=self._last, targets=self.targets, top=self._options["top"],
            flips=self._flips(step),
        )  # fmt: skip
        self._start, self._last = start, (step, kernel)
        self.history.append(snapshot)
        return snapshot

    def state_dict(self) -> dict[str, Any]:
        """Snapshots and the kernels that the next one is compared with."""
        return {"history": [to_plain(s) for s in self.history], "start": self._start, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.history = [_restored(row) for row in state["history"]]
        self._start, self._last = state["start"], state["last"]

    def report(self) -> SpectrumReport:
        """The snapshots as a table, data or picture."""
        return SpectrumReport(self.kernel, tuple(self.history))

    def _kernel(self, model: nn.Module, masks: Masks) -> Tensor:
        dtype = self._options["dtype"]
        if self.kernel == "feature":
            return feature_kernel(model, self.X, masks=masks, dtype=dtype)
        return gradient_kernel(model, self.X, masks=masks, memory=self._options["memory"], dtype=dtype)

    def _flips(self, step: int) -> dict[str, float] | None:
        """Sums over the refreshes since the last snapshot."""
        if self.sparsifier is None:
            return None
        since = -1 if self._last is None else self._last[0]
        rows = [row for row in self.sparsifier.history if since < row["step"] <= step]
        return {name: sum(row[name] for row in rows) for name in ("flip_rate", "sad")}


@dataclass(frozen=True, slots=True)
class SpectrumReport(TableReport):
    """All snapshots of one run.

    Attributes:
        kernel: ``"gradient"`` or ``"feature"``.
        snapshots: in the order of the steps.
    """

    kernel: str
    snapshots: Sequence[Snapshot]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return {
            "kernel": self.kernel,
            "snapshots": [s.row() | {"eigenvalues": list(s.eigenvalues)} for s in self.snapshots],
        }

    def to_table(self) -> Table:
        """One line per snapshot."""
        sparse = any(snapshot.flip_rate is not None for snapshot in self.snapshots)
        columns = [c for c in _COLUMNS if sparse or c.key not in ("flip_rate", "sad")]
        return Table(f"{self.kernel} kernel along training", columns, [s.row() for s in self.snapshots])

    def plot(self, path: str | Path) -> Path:
        """Draw eigenvalues, alignments and velocity over steps, with flips where masks move.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: there are no snapshots.
        """
        from bisparse.kernel_theory.tracker_plot import plot_snapshots

        return plot_snapshots(self.snapshots, Path(path))


_COLUMNS = (
    Column("step", "step", "count"),
    Column("largest", "largest", "number", 2),
    Column("trace", "trace", "number", 1),
    Column("rank", "rank", "count", 3),
    Column("stable_rank", "stable rank", "number", 1),
    Column("decay", "decay", "number", 4),
    Column("alignment", "alignment", "share"),
    Column("cka_start", "CKA start", "share"),
    Column("cka_last", "CKA last", "share", 2),
    Column("velocity", "velocity", "number", 1),
    Column("flip_rate", "flip rate", "share", 1),
    Column("sad", "SAD", "number", 2),
)


def _targets(y: Tensor) -> Tensor:
    """(n, C) floating point; class numbers become one-hot rows."""
    if y.is_floating_point() or y.dim() > 1:
        return y.reshape(len(y), -1).double()
    return F.one_hot(y.long()).double()


def _restored(row: dict[str, Any]) -> Snapshot:
    """Plain data hold NaN as text."""
    values = {key: float(value) if isinstance(value, str) else value for key, value in row.items()}
    return Snapshot(**values | {"eigenvalues": tuple(row["eigenvalues"])})
