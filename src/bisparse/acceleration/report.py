"""What was measured, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bisparse.report import Column, Table, counted, format_bytes, plain_number, render, to_plain

__all__ = ["AccelerateReport", "LayerTiming"]

_COLUMNS: Sequence[Column] = (
    Column("name", "layer"),
    Column("shape", "shape", "shape"),
    Column("pattern", "pattern", rank=1),
    Column("tokens", "tokens", "count"),
    Column("calls", "calls", "count", rank=2),
    Column("dense_us", "dense us", "number"),
    Column("sparse_us", "sparse us", "number"),
    Column("choice", "choice"),
    Column("reason", "why", rank=3),
)


@dataclass(frozen=True, slots=True)
class LayerTiming:
    """One layer at one number of tokens.

    Attributes:
        name: dotted name of the module.
        shape: of its weight.
        pattern: that its zeros obey.
        tokens: rows of its input.
        calls: how often it was called so in one run of the sample.
        dense_us: median of a call in microseconds.
        sparse_us: the same of the best sparse layer; ``None`` where none fits.
        choice: ``"dense"``, or the name of the sparse layer that took its place.
        reason: why.
    """

    name: str
    shape: tuple[int, ...]
    pattern: str
    tokens: int
    calls: int
    dense_us: float | None
    sparse_us: float | None
    choice: str
    reason: str


def _plain(row: LayerTiming) -> dict[str, str | None]:
    """Times without exponents."""
    times = {"dense_us": row.dense_us, "sparse_us": row.sparse_us}
    return {key: None if value is None else plain_number(value) for key, value in times.items()}


@dataclass(frozen=True, slots=True)
class AccelerateReport:
    """What acceleration did.

    Attributes:
        layers: one row per masked layer and number of tokens.
        mode: ``"inference"`` or ``"training"``.
        min_gain: how much faster a sparse layer had to be.
        dense_seconds: median of the whole sample before; ``None`` where nothing was swapped, or the model failed.
        sparse_seconds: the same after.
        difference: relative distance of the outputs before and after.
        dense_bytes: weights of the swapped layers before.
        sparse_bytes: the same after.
        put_back: why every layer is dense again; ``""`` where the chosen ones are sparse.
        machine: what this holds for.
        notes: what a user should know, one line each.
    """

    layers: tuple[LayerTiming, ...]
    mode: str
    min_gain: float
    dense_seconds: float | None
    sparse_seconds: float | None
    difference: float | None
    dense_bytes: int
    sparse_bytes: int
    put_back: str
    machine: str
    notes: tuple[str, ...] = ()

    @property
    def rolled_back(self) -> bool:
        """Whether everything was put back."""
        return bool(self.put_back)

    @property
    def swapped(self) -> tuple[str, ...]:
        """Names of the layers that are sparse now."""
        return tuple(dict.fromkeys(row.name for row in self.layers if row.choice != "dense"))

    @property
    def speedup(self) -> float:
        """Time of the whole sample before, relative to now; 1 where nothing was swapped."""
        if self.dense_seconds is None or self.sparse_seconds is None or self.rolled_back:
            return 1.0
        return self.dense_seconds / self.sparse_seconds

    def __str__(self) -> str:
        """The table as text."""
        return "\n".join(render(self.to_table(), limit=24))

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        plain: dict[str, object] = to_plain(self)
        return plain | {"speedup": self.speedup, "rolled_back": self.rolled_back}

    def to_table(self) -> Table:
        """One line per layer and number of tokens, with totals and notes."""
        rows = [to_plain(row) | {"shape": row.shape} | _plain(row) for row in self.layers]
        count = len({row.name for row in self.layers})
        notes = [
            f"{len(self.swapped)} of {counted(count, 'masked layer', 'masked layers')} swapped; {self.machine}"
        ]
        if self.dense_seconds is not None and self.sparse_seconds is not None:
            what = f"put back: {self.put_back}" if self.put_back else "swapped"
            notes.append(
                f"whole model: {1e3 * self.dense_seconds:.3g} ms dense, {1e3 * self.sparse_seconds:.3g} ms sparse "
                f"({self.dense_seconds / self.sparse_seconds:.2f}x, {what}); outputs differ by {self.difference:.1e}"
            )
        elif self.put_back:
            notes.append(f"put back: {self.put_back}")
        if self.swapped:
            notes.append(
                f"their weights: {format_bytes(self.dense_bytes)} -> {format_bytes(self.sparse_bytes)}"
            )
        return Table(
            f"{self.mode}: dense against sparse, medians of one call", _COLUMNS, rows, (*notes, *self.notes)
        )
