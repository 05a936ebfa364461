"""What pruning a file did: one row for every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bisparse.files.masking import Tally, share_of
from bisparse.files.selection import Choice
from bisparse.files.stream import Masker
from bisparse.report import Column, Table, TableReport, counted

__all__ = ["FilePruneReport", "PrunedTensor", "report_of"]

Status = Literal["pruned", "unchanged", "left"]


@dataclass(frozen=True, slots=True)
class PrunedTensor:
    """One tensor of the file.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: the format's type name.
        status: ``"pruned"``; ``"unchanged"`` where the pattern keeps it wholly dense (too small); ``"left"``
            where it was not chosen.
        taken_for: what it was taken for.
        reason: why it was taken for that, or why it was left.
        density: share of entries that are not zero now; ``None`` where it was left.
        density_before: the same before.
        kept_magnitude: share of the summed magnitude that is kept.
        gap: proven optimality gap of its mask (0: optimal; ``inf``: the method proves nothing).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    status: Status
    taken_for: str
    reason: str
    density: float | None = None
    density_before: float | None = None
    kept_magnitude: float | None = None
    gap: float | None = None


def _row_of(choice: Choice, tally: Tally) -> PrunedTensor:
    """The row of one tensor from the sums over its blocks."""
    head = (choice.name, choice.shape, choice.dtype)
    if not choice.chosen:
        return PrunedTensor(*head, "left", choice.reading, choice.left_out)
    status: Status = "unchanged" if tally.kept == tally.size else "pruned"
    size = max(tally.size, 1)
    share = share_of(tally.kept_magnitude, tally.magnitude)
    excess = max(0.0, tally.bound - tally.kept_magnitude)
    gap = excess / tally.kept_magnitude if tally.kept_magnitude else (0.0 if excess == 0 else float("inf"))
    reason = choice.why if status == "pruned" else f"{choice.why}; too small for the pattern: stays dense"
    measures = (tally.nonzero / size, tally.nonzero_before / size, share, gap)
    return PrunedTensor(*head, status, choice.reading, reason, *measures)


@dataclass(frozen=True, slots=True)
class FilePruneReport(TableReport):
    """What pruning a file did.

    Attributes:
        source: the input.
        output: what was written.
        pattern: the pattern's text form.
        method: the solver.
        tensors: every tensor, in the order of the file.
        seconds: wall time of this run.
        kept_magnitude: share of the pruned tensors' summed magnitude that is kept.
        density: share of non-zero entries over the pruned tensors.
        notes: what a user should know, one line each.
    """

    source: str
    output: str
    pattern: str
    method: str
    tensors: tuple[PrunedTensor, ...]
    seconds: float
    kept_magnitude: float
    density: float
    notes: tuple[str, ...]

    @property
    def pruned(self) -> tuple[PrunedTensor, ...]:
        """The tensors that were pruned."""
        return tuple(tensor for tensor in self.tensors if tensor.status == "pruned")

    def to_table(self) -> Table:
        """The tensors as a table, with totals and notes."""
        pruned = self.pruned
        shown = [tensor for tensor in self.tensors if len(tensor.shape) > 1]
        worst = max((t.gap for t in pruned if t.gap is not None), default=0.0)
        small = len(self.tensors) - len(shown)
        totals = (
            f"{len(pruned)} of {counted(len(self.tensors), 'tensor', 'tensors')} pruned to {self.pattern} "
            f"({self.method}, {_proof(worst)})"
            + (
                f"; {counted(small, 'bias, norm or scalar', 'biases, norms and scalars')} left"
                if small
                else ""
            ),
            f"over the pruned tensors: density {self.density:.4f}, kept magnitude {self.kept_magnitude:.4f}; "
            f"{self.seconds:.3g} s",
        )
        rows = [
            {
                "name": tensor.name,
                "status": tensor.status,
                "density": tensor.density,
                "kept": tensor.kept_magnitude,
                "shape": tensor.shape,
                "dtype": tensor.dtype,
                "taken_for": tensor.taken_for,
                "reason": tensor.reason,
            }
            for tensor in shown
        ]
        return Table(f"{self.source} -> {self.output}", COLUMNS, rows, (*totals, *self.notes))


def _proof(gap: float) -> str:
    """What is proven; a gap up to 1e-7 is what rounding leaves of a sum."""
    if gap == float("inf"):
        return "no proof"
    if gap > 1e-7:
        return f"proven gap {gap:.0e}"
    return f"proven optimal to {gap:.0e}" if gap else "proven optimal"


COLUMNS: Sequence[Column] = (
    Column("name", "tensor", "text"),
    Column("status", "status", "text"),
    Column("density", "density", "share"),
    Column("kept", "kept |w|", "share"),
    Column("shape", "shape", "shape", rank=1),
    Column("dtype", "type", "text", rank=2),
    Column("taken_for", "taken for", "text", rank=1),
    Column("reason", "why", "text", rank=3),
)


def report_of(
    choices: Sequence[Choice],
    tallies: Mapping[str, Tally],
    *,
    source: str,
    output: str,
    masker: Masker,
    seconds: float,
    notes: Sequence[str],
) -> FilePruneReport:
    """Put the report together from what was decided and what was counted."""
    rows = tuple(_row_of(choice, tallies.get(choice.name, Tally())) for choice in choices)
    whole = Tally()
    for row in rows:
        if row.status == "pruned":
            whole.add(tallies[row.name])
    return FilePruneReport(
        source=source,
        output=output,
        pattern=str(masker.pattern),
        method=masker.method,
        tensors=rows,
        seconds=seconds,
        kept_magnitude=share_of(whole.kept_magnitude, whole.magnitude),
        density=whole.nonzero / whole.size if whole.size else 1.0,
        notes=tuple(notes),
    )
