"""How one tensor is stored in a packed file: its description in the header, and the tensors that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeGuard, cast

from bisparse.files.errors import CheckpointError
from bisparse.files.packed.combination import MAX_BLOCK, code_bits
from bisparse.files.safetensors_types import BITS

__all__ = ["MAX_EXPANSION", "SIGN_BITS", "Coding", "Kind", "Part", "coding_of"]

Kind = Literal["combination", "bitmask", "csr"]
MAX_EXPANSION = 1024
# Types with a negative zero, which differs from zero by its highest bit alone.
SIGN_BITS = {"F64": 63, "F32": 31, "F16": 15, "BF16": 15, "F8_E4M3": 7, "F8_E5M2": 7}
_FIELDS = {"dtype", "shape", "coding", "keep", "block", "axis", "nonzeros", "signs"}


@dataclass(frozen=True, slots=True)
class Part:
    """One stored tensor: what its name ends in, its type and shape."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Coding:
    """How a tensor is stored.

    Attributes:
        dtype: the format's name of its type.
        shape: its shape, two or more dimensions.
        kind: ``"combination"``: of every ``block`` entries along ``axis``, ``keep`` values and one number that says
            which; ``"bitmask"``: the non-zero values, and one bit per entry; ``"csr"``: the non-zero values, their
            columns, and where each row begins.
        keep: N, for combinations.
        block: M, for combinations.
        axis: along which the groups run, for combinations.
        nonzeros: how many values are stored, for the others.
        signs: whether there are negative zeros, whose signs are stored as well.
    """

    dtype: str
    shape: tuple[int, ...]
    kind: Kind
    keep: int = 0
    block: int = 0
    axis: int = 0
    nonzeros: int = 0
    signs: bool = False

    @property
    def view(self) -> tuple[int, int, int]:
        """(outer, length, inner): groups run along ``length``; rows and columns where there are no groups."""
        axis = self.axis if self.kind == "combination" else 1
        if self.kind == "combination":
            return prod(self.shape[:axis]), self.shape[axis], prod(self.shape[axis + 1 :])
        return self.shape[0], prod(self.shape[1:]), 1

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return BITS[self.dtype] // 8

    @property
    def dense_bytes(self) -> int:
        """Size of the tensor itself."""
        return prod(self.shape) * self.itemsize

    @property
    def nbytes(self) -> int:
        """Size of all its parts."""
        return sum(part.nbytes for part in self.parts())

    @property
    def text(self) -> str:
        """For people: ``"4:8"``, ``"bitmask"``, ``"csr"``."""
        return f"{self.keep}:{self.block}" if self.kind == "combination" else self.kind

    def parts(self) -> tuple[Part, ...]:
        """What is stored. Every outer row begins with a whole byte in each of its parts."""
        outer, length, inner = self.view
        parts: list[tuple[str, str, tuple[int, ...]]]
        if self.kind == "combination":
            groups = -(-length // self.block) * inner
            index = -(-groups * code_bits(self.keep, self.block) // 8)
            parts = [("values", self.dtype, (outer, groups * self.keep)), ("index", "U8", (outer, index))]
            signs = -(-groups * (self.block - self.keep) // 8)
        elif self.kind == "bitmask":
            signs = -(-length // 8)
            parts = [("values", self.dtype, (self.nonzeros,)), ("index", "U8", (outer, signs))]
        else:
            columns = "U16" if length <= 1 << 16 else "U32"
            starts = "U32" if self.nonzeros < 1 << 32 else "U64"
            parts = [("values", self.dtype, (self.nonzeros,)), ("index", columns, (self.nonzeros,))]
            return tuple(Part(*part) for part in [*parts, ("rows", starts, (outer + 1,))])
        if self.signs:
            parts.append(("signs", "U8", (outer, signs)))
        return tuple(Part(*part) for part in parts)

    def describe(self) -> dict[str, object]:
        """Its description, as it stands in the header."""
        fields: dict[str, object] = {"dtype": self.dtype, "shape": list(self.shape), "coding": self.kind}
        if self.kind == "combination":
            fields |= {"keep": self.keep, "block": self.block, "axis": self.axis}
        else:
            fields["nonzeros"] = self.nonzeros
        return fields | ({"signs": True} if self.signs else {})


def coding_of(name: str, described: object) -> Coding:
    """Read a description, believing nothing.

    Raises:
        CheckpointError: anything but what :meth:`Coding.describe` may give.
    """
    shown = repr(name if len(name) < 80 else name[:77] + "...")
    if not isinstance(described, dict) or not described.keys() <= _FIELDS:
        raise CheckpointError(f"the description of {shown} is not one of this version")
    fields: Mapping[str, Any] = described  # Any: each field is checked below
    dtype, shape, kind = fields.get("dtype"), fields.get("shape"), fields.get("coding")
    if not isinstance(dtype, str) or BITS.get(dtype, 0) < 8 or BITS[dtype] not in (8, 16, 32, 64):
        raise CheckpointError(
            f"{shown} is described with the type {str(dtype)[:40]!r}, which is never packed"
        )
    if (
        not isinstance(shape, list)
        or not 2 <= len(shape) <= 64
        or not all(_is_number(size, 1) for size in shape)
    ):
        raise CheckpointError(f"{shown} is described with no valid shape")
    if prod(shape) * BITS[dtype] >= 2**63:
        raise CheckpointError(f"{shown} is described with more entries than any file holds")
    if kind not in ("combination", "bitmask", "csr"):
        raise CheckpointError(f"{shown} has the unknown coding {str(kind)[:40]!r}")
    signs = fields.get("signs", False)
    if not isinstance(signs, bool) or (signs and (dtype not in SIGN_BITS or kind == "csr")):
        raise CheckpointError(f"{shown} is described with signs of zeros that it cannot have")
    if kind == "combination":
        return _combination(shown, dtype, tuple(shape), fields, signs)
    nonzeros = fields.get("nonzeros")
    if not _is_number(nonzeros, 0) or nonzeros > prod(shape) or fields.keys() & {"keep", "block", "axis"}:
        raise CheckpointError(f"{shown} is described with an impossible number of values")
    if kind == "csr" and prod(shape[1:]) >= 1 << 32:
        raise CheckpointError(f"{shown} is described with rows too long for csr")
    coding = Coding(dtype, tuple(shape), cast(Kind, kind), nonzeros=nonzeros, signs=signs)
    if coding.dense_bytes > MAX_EXPANSION * max(coding.nbytes, 1):
        raise CheckpointError(
            f"{shown} claims to be more than {MAX_EXPANSION} times as large as what is stored of it"
        )
    return coding


def _combination(
    shown: str, dtype: str, shape: tuple[int, ...], fields: Mapping[str, Any], signs: bool
) -> Coding:
    keep, block, axis = (cast(int, fields.get(key)) for key in ("keep", "block", "axis"))
    numbers = _is_number(keep, 1) and _is_number(block, 2) and _is_number(axis, 0)
    if not numbers or not keep < block <= MAX_BLOCK or axis >= len(shape) or "nonzeros" in fields:
        raise CheckpointError(f"{shown} is described with an impossible pattern or axis")
    return Coding(dtype, shape, "combination", keep, block, axis, signs=signs)


def _is_number(value: object, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63
