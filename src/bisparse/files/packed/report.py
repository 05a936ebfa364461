"""What packing did: one row for every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bisparse.report import Column, Table, TableReport, counted, format_bytes, to_plain

__all__ = ["PackReport", "PackedTensor"]

_COLUMNS: Sequence[Column] = (
    Column("name", "tensor"),
    Column("coding", "stored as"),
    Column("nbytes", "bytes", "bytes"),
    Column("share", "of dense", "share"),
    Column("density", "density", "share", rank=1),
    Column("shape", "shape", "shape", rank=1),
    Column("dtype", "type", rank=2),
    Column("reason", "why", rank=3),
)


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One tensor of the file.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: the format's type name.
        coding: ``"4:8"``, ``"bitmask"``, ``"csr"``, or ``"dense"``.
        reason: why it is stored so.
        nbytes: what it takes.
        dense_bytes: what it takes as it is.
        density: share of non-zeros; ``None`` where they were not counted.
        negative_zeros: how many of its zeros are negative.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    coding: str
    reason: str
    nbytes: int
    dense_bytes: int
    density: float | None = None
    negative_zeros: int = 0


@dataclass(frozen=True, slots=True)
class PackReport(TableReport):
    """What packing (or unpacking) did.

    Attributes:
        source: the input.
        output: what was written.
        tensors: every tensor, in the order of the file.
        nbytes: all files that hold tensors, with their headers.
        dense_bytes: all tensors, dense.
        seconds: wall time.
        notes: what a user should know, one line each.
    """

    source: str
    output: str
    tensors: tuple[PackedTensor, ...]
    nbytes: int
    dense_bytes: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def packed(self) -> tuple[PackedTensor, ...]:
        """The tensors that are stored packed."""
        return tuple(tensor for tensor in self.tensors if tensor.coding != "dense")

    @property
    def ratio(self) -> float:
        """Size of the output relative to the dense tensors."""
        return self.nbytes / max(self.dense_bytes, 1)

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        plain: dict[str, object] = to_plain(self)
        return plain | {"ratio": self.ratio}

    def to_table(self) -> Table:
        """The tensors of two or more dimensions, with totals and notes."""
        shown = [tensor for tensor in self.tensors if len(tensor.shape) > 1]
        rows = [to_plain(t) | {"shape": t.shape, "share": t.nbytes / max(t.dense_bytes, 1)} for t in shown]
        small = len(self.tensors) - len(shown)
        signs = sum(tensor.negative_zeros for tensor in self.packed)
        notes = [
            f"{len(self.packed)} of {counted(len(self.tensors), 'tensor', 'tensors')} packed"
            + (
                f" ({counted(small, 'bias, norm or scalar', 'biases, norms and scalars')} not shown)"
                if small
                else ""
            ),
            f"{format_bytes(self.dense_bytes)} -> {format_bytes(self.nbytes)}: {self.ratio:.3f} of dense; "
            f"{self.seconds:.3g} s",
        ]
        if signs:
            notes.append(
                f"{signs:,} zeros are negative; without their signs (signed_zeros=False) it is smaller"
            )
        return Table(f"{self.source} -> {self.output}", _COLUMNS, rows, (*notes, *self.notes))
