"""What a checkpoint holds: one row for every tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bisparse.report import Column, Table, TableReport, counted, format_bytes

__all__ = ["FileInspection", "InspectedTensor", "PatternCheck"]


@dataclass(frozen=True, slots=True)
class PatternCheck:
    """One weight held against the pattern that was asked for.

    Attributes:
        satisfied: whether its zeros obey the pattern.
        groups: groups of M along the inputs.
        violations: groups along the inputs with more than N non-zeros.
        transposed_groups: groups of M along the outputs.
        transposed_violations: groups along the outputs with more than N non-zeros.
        kept_magnitude: share of the summed magnitude that the best mask of the pattern would keep.
        log10_diversity: decimal logarithm of the number of masks that the pattern allows on this shape.
    """

    satisfied: bool
    groups: int
    violations: int
    transposed_groups: int
    transposed_violations: int
    kept_magnitude: float | None
    log10_diversity: float


@dataclass(frozen=True, slots=True)
class InspectedTensor:
    """One tensor.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: the format's type name.
        bytes: its size.
        taken_for: what it was taken for.
        why: the evidence.
        undecided: what else it might be; ``""`` where that is clear.
        density: share of entries that are not zero; ``None`` for types without a plain zero.
        not_finite: entries that are NaN or infinite.
        inputs: row-wise patterns that its zeros obey along the inputs (``"2:4"``).
        outputs: the same along the outputs, so for the transposed weight.
        transposable: patterns that they obey both ways (``"4:8t"``).
        check: the pattern that was asked for; ``None`` without one, or for what is no weight.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    taken_for: str
    why: str
    undecided: str
    density: float | None
    not_finite: int = 0
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    transposable: tuple[str, ...] = ()
    check: PatternCheck | None = None

    @property
    def patterns(self) -> str:
        """All patterns that it obeys as one text, the sparsest first."""
        one_way = [f"{text} in" for text in self.inputs if f"{text}t" not in self.transposable]
        other = [f"{text} out" for text in self.outputs if f"{text}t" not in self.transposable]
        return ", ".join(sorted((*self.transposable, *one_way, *other), key=_density))


def _density(text: str) -> float:
    keep, block = re.findall(r"\d+", text)
    return int(keep) / int(block)


@dataclass(frozen=True, slots=True)
class FileInspection(TableReport):
    """What a checkpoint holds.

    Attributes:
        source: the file or folder.
        kind: ``"safetensors"``, ``"folder"`` or ``"pickle"``.
        pattern: the pattern asked for, as text; ``""`` without one.
        tensors: every tensor, in the order of the file.
        parameters: entries of all tensors.
        bytes: bytes of all tensors.
        weights: entries of the tensors that are weights.
        weight_density: share of these that are not zero.
        metadata: the file's metadata.
        notes: what a user should know, one line each.
    """

    source: str
    kind: str
    pattern: str
    tensors: tuple[InspectedTensor, ...]
    parameters: int
    bytes: int
    weights: int
    weight_density: float
    metadata: dict[str, str]
    notes: tuple[str, ...]

    def to_table(self) -> Table:
        """The weights as a table, with totals and notes."""
        shown = [tensor for tensor in self.tensors if len(tensor.shape) > 1]
        rest = len(self.tensors) - len(shown)
        totals = [
            f"{len(self.tensors)} tensors, {self.parameters:,} entries, {format_bytes(self.bytes)}; "
            f"{self.weights:,} in weights, density {self.weight_density:.4f}"
            + (
                f"; {counted(rest, 'bias, norm or scalar', 'biases, norms and scalars')} not shown"
                if rest
                else ""
            )
        ]
        if self.pattern:
            checks = [tensor.check for tensor in self.tensors if tensor.check is not None]
            totals.append(
                f"{sum(check.satisfied for check in checks)} of {len(checks)} weights are {self.pattern}"
            )
        broken = [tensor.name for tensor in self.tensors if tensor.not_finite]
        totals += [f"NaN or infinite entries in {', '.join(broken[:5])}"] if broken else []
        asked = (
            [replace(c, title=c.title.format(self.pattern)) for c in PATTERN_COLUMNS] if self.pattern else []
        )
        columns = (*COLUMNS, *asked)
        rows = [_row(tensor) for tensor in shown]
        return Table(f"{self.source} ({self.kind})", columns, rows, (*totals, *self.notes))


def _row(tensor: InspectedTensor) -> dict[str, object]:
    row: dict[str, object] = {
        "name": tensor.name,
        "shape": tensor.shape,
        "dtype": tensor.dtype,
        "density": tensor.density,
        "patterns": tensor.patterns or None,
        "bytes": tensor.bytes,
        "taken_for": tensor.taken_for + (f" or {tensor.undecided}" if tensor.undecided else ""),
        "why": tensor.why,
    }
    if (check := tensor.check) is not None:
        row |= {
            "satisfied": "yes" if check.satisfied else "no",
            "violations": check.violations,
            "transposed": check.transposed_violations,
            "kept": check.kept_magnitude,
            "diversity": f"10^{check.log10_diversity:,.0f}",
        }
    return row


COLUMNS: Sequence[Column] = (
    Column("name", "tensor"),
    Column("shape", "shape", "shape", rank=1),
    Column("dtype", "type", rank=1),
    Column("density", "density", "share"),
    Column("patterns", "its zeros are", rank=1),
    Column("bytes", "size", "bytes", rank=3),
    Column("taken_for", "taken for", rank=2),
    Column("why", "why", rank=4),
)
PATTERN_COLUMNS: Sequence[Column] = (
    Column("satisfied", "{}?"),
    Column("violations", "groups over, in", "count", rank=2),
    Column("transposed", "groups over, out", "count", rank=2),
    Column("kept", "{} keeps", "share", rank=1),
    Column("diversity", "masks", rank=3),
)
