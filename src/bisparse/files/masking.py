"""Zeroing one block of a weight, and what that kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bisparse.masks.solve import solve_mask
from bisparse.pattern import Pattern
from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["NotFiniteError", "Tally", "bits_of", "count_nonzero", "magnitude_of", "mask_block", "share_of"]

_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
_PIECE = 1 << 17
Bits = npt.NDArray[Any]


@dataclass(slots=True)
class Tally:
    """Sums over the blocks of one tensor.

    Attributes:
        size: entries seen.
        kept: entries that the masks keep.
        nonzero_before: entries that were not zero.
        nonzero: entries that are not zero now.
        magnitude: sum of the absolute values before.
        kept_magnitude: the part of it that is kept.
        bound: proven upper bound of the kept magnitude over all masks of the pattern.
    """

    size: int = 0
    kept: int = 0
    nonzero_before: int = 0
    nonzero: int = 0
    magnitude: float = 0.0
    kept_magnitude: float = 0.0
    bound: float = 0.0

    def add(self, other: Tally) -> None:
        """Add the sums of another block."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @classmethod
    def from_list(cls, sums: Sequence[float]) -> Tally:
        """The inverse of :meth:`to_list`."""
        return cls(*(int(value) for value in sums[:4]), *sums[4:])

    def to_list(self) -> list[float]:
        """The sums in the order of the attributes."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


class NotFiniteError(ValueError):
    """A weight that cannot be ranked.

    Args:
        value: NaN or an infinity.
        entry: its place in the block.
    """

    def __init__(self, value: float, entry: int) -> None:
        super().__init__(f"{value} at entry {entry}")
        self.value = value
        self.entry = entry

    def line(self, name: str, shape: tuple[int, ...], first: int = 0) -> str:
        """What to tell the user, for a tensor whose block begins at its entry ``first``."""
        index = tuple(int(i) for i in np.unravel_index(first + self.entry, shape))
        return f"{name} holds {self.value} at {index}: mend it, or leave it with --ignore"


def mask_block(
    weight: Tensor, layout: Layout | None, pattern: Pattern, *, method: str, threads: int
) -> Tally:
    """Find the best mask by magnitude for a block and zero everything else, in place.

    All passes but the solver's work on the bits with NumPy, in this thread alone: many blocks are masked at
    the same time, and threads inside each pass would only wait for one another.

    Args:
        weight: contiguous floating-point block on the CPU; changed in place.
        layout: how it is read as matrices; ``None`` for patterns that do not care.
        pattern: what masks are allowed.
        method: the solver.
        threads: threads of the solver.

    Returns:
        What was kept.

    Raises:
        NotFiniteError: a NaN or an infinity.
    """
    bits = bits_of(weight)
    before = count_nonzero(bits)
    scores = weight.reshape(1, -1) if layout is None else as_matrices(weight, layout)
    try:
        result = solve_mask(scores, pattern, method=method, magnitude=True, threads=threads)
    except ValueError:
        if bool(torch.isfinite(weight).all()):
            raise
        flat = weight.reshape(-1)
        entry = int(torch.nonzero(~torch.isfinite(flat))[0])
        raise NotFiniteError(float(flat[entry]), entry) from None
    total = magnitude_of(weight)
    found = result.mask if layout is None else from_matrices(result.mask, layout, weight.shape)
    mask = found.reshape(-1).numpy()
    kept = int(np.count_nonzero(mask))
    # Bits, not values: a product of floats would leave -0.0 where a negative weight was.
    np.multiply(bits, mask, out=bits)
    nonzero = kept if before == bits.size else count_nonzero(bits)
    return Tally(bits.size, kept, before, nonzero, total, result.objective, result.bound)


def share_of(part: float, whole: float) -> float:
    """A share, at most 1 (the two are summed with different rounding); 1 of nothing."""
    return min(1.0, part / whole) if whole else 1.0


def bits_of(tensor: Tensor) -> Bits:
    """The bits of a contiguous tensor as unsigned integers, one for each entry; shares its memory."""
    flat = tensor.detach().reshape(-1)
    bits: Bits = flat.view(_UNSIGNED[tensor.element_size()]).numpy()
    return bits


def count_nonzero(bits: Bits) -> int:
    """How many floating-point entries are neither 0.0 nor -0.0, from their bits."""
    negative_zero = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return sum(
        int(np.count_nonzero(piece)) - int(np.count_nonzero(piece == negative_zero))
        for piece in _pieces(bits)
    )


def magnitude_of(weight: Tensor) -> float:
    """Sum of the absolute values: pairwise in float32 or wider over short pieces, these in float64."""
    flat = weight.detach().reshape(-1)
    if weight.dtype == torch.bfloat16:
        return sum(_magnitude_of_bfloat16(piece) for piece in _pieces(bits_of(weight)))
    pieces = _pieces(flat.numpy())
    if weight.dtype == torch.float16:
        pieces = (piece.astype(np.float32) for piece in pieces)
    return sum(_sum(np.abs(piece)) for piece in pieces)


def _magnitude_of_bfloat16(bits: Bits) -> float:
    """A bfloat16 is the upper half of a float32; its sign is masked away. Two at a time if they pair up."""
    words = bits.view(np.uint32) if bits.size % 2 == 0 else bits.astype(np.uint32)
    upper = (words & np.uint32(0x7FFF0000)).view(np.float32)
    lower = (np.left_shift(words, np.uint32(16)) & np.uint32(0x7FFF0000)).view(np.float32)
    return _sum(upper) + _sum(lower)


def _sum(values: Bits) -> float:
    """In the type of the values, or in float64 where that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
        return total if math.isfinite(total) else float(values.sum(dtype=np.float64))


def _pieces(array: Bits) -> Iterator[Bits]:
    """Pieces that stay in the cache, with whatever is computed from them."""
    return (array[start : start + _PIECE] for start in range(0, array.size, _PIECE))
