"""The smallest coding of a tensor, found from where its zeros are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from bisparse.files.packed.bits import Array
from bisparse.files.packed.coding import MAX_EXPANSION, SIGN_BITS, Coding
from bisparse.files.packed.combination import MAX_BLOCK
from bisparse.files.packed.encode import nonzero_flags, zero_signs
from bisparse.files.packed.pieces import Piece, View, pieces
from bisparse.files.safetensors_header import TensorEntry
from bisparse.pattern import NM, Pattern, TransposableNM

__all__ = ["BLOCK_SIZES", "Reader", "Ruling", "smallest_coding"]

BLOCK_SIZES = (4, 8, 16, 32)
Reader = Callable[[View, Piece], Array]
_DENSE = 0.96


@dataclass(frozen=True, slots=True)
class Ruling:
    """How a tensor is to be stored.

    Attributes:
        coding: ``None``: as it is.
        reason: why so.
        nonzeros: of its entries, negative zeros not counted; ``None`` where they were not counted.
        negative_zeros: how many there are.
    """

    coding: Coding | None
    reason: str
    nonzeros: int | None = None
    negative_zeros: int = 0


@dataclass(slots=True)
class _Counts:
    """What one pass over a tensor finds."""

    nonzeros: int = 0
    negative_zeros: int = 0
    most: dict[int, int] = field(default_factory=dict)

    def add(self, bits: Array, dtype: str, blocks: tuple[int, ...]) -> None:
        flags = nonzero_flags(bits, dtype)
        found = int(np.count_nonzero(flags))
        self.nonzeros += found
        if dtype in SIGN_BITS and found < flags.size:
            self.negative_zeros += int(np.count_nonzero(zero_signs(bits, dtype)))
        for block, most in _fullest(flags, blocks):
            self.most[block] = max(self.most.get(block, 1), most)


def _fullest(flags: Array, blocks: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """For every block size: non-zeros of the fullest group along the middle axis."""
    counts, size = flags.view(np.uint8), 1
    for block in blocks:
        if block % size or block // size & (block // size - 1):
            counts, size = flags.view(np.uint8), 1
        while size < block and block % (2 * size) == 0 and (block // size) % 2 == 0:
            counts, size = _pairs(counts), 2 * size
        if size < block:
            counts, size = _sums(counts, block // size), block
        yield block, int(counts.max(initial=0))


def _pairs(counts: Array) -> Array:
    """Sums of neighbours along the middle axis."""
    if counts.shape[1] % 2:
        counts = np.pad(counts, ((0, 0), (0, 1), (0, 0)))
    total: Array = counts[:, 0::2] + counts[:, 1::2]
    return total


def _sums(counts: Array, factor: int) -> Array:
    """Sums of ``factor`` neighbours along the middle axis."""
    total: Array = np.add.reduceat(counts, np.arange(0, counts.shape[1], factor), axis=1, dtype=np.uint8)
    return total


def _axes(dims: int) -> tuple[int, ...]:
    """Axes along which groups may run: inputs of linear layers, convolutions, experts; then their transposes."""
    return (1, 2, 0) if dims == 3 else (1, 0)


def smallest_coding(
    entry: TensorEntry, read: Reader, *, pattern: Pattern | None = None, signed_zeros: bool = True
) -> Ruling:
    """Choose how a tensor is stored.

    For block sizes 4, 8, 16 and 32 the fullest group says which N:M the zeros obey; then combination, bitmask
    and csr are compared by exact size. Cost: one pass over the tensor where it is dense or obeys a pattern
    along the first axis tried, else two or three.

    Args:
        entry: the tensor.
        read: gives a piece of a view as unsigned integers (rows, count, inner).
        pattern: consider only this one; what does not obey it stays as it is.
        signed_zeros: whether the signs of zeros are to be kept.

    Returns:
        The coding, or none where nothing is smaller than the tensor itself.
    """
    if len(entry.shape) < 2 or entry.itemsize not in (1, 2, 4, 8) or entry.nbytes <= _overhead(entry):
        return Ruling(None, "small" if len(entry.shape) > 1 else "one dimension")
    blocks: tuple[int, ...] = BLOCK_SIZES if pattern is None else ()
    if isinstance(pattern, (NM, TransposableNM)):
        if pattern.block > MAX_BLOCK:
            return Ruling(None, f"{pattern}: blocks of more than {MAX_BLOCK} are not packed")
        blocks = (pattern.block,)
    counts = _Counts()
    found: list[Coding] = []
    for axis in _axes(len(entry.shape)):
        counts = _count(entry, read, axis, blocks)
        if counts.nonzeros > _DENSE * entry.numel:
            return Ruling(None, "dense", counts.nonzeros, counts.negative_zeros)
        signs = signed_zeros and counts.negative_zeros > 0
        found += _combinations(entry, axis, counts, pattern, signs)
        bitmask = Coding(entry.dtype, entry.shape, "bitmask", nonzeros=counts.nonzeros, signs=signs)
        if not blocks or any(coding.nbytes <= bitmask.nbytes for coding in found):
            break
    if not isinstance(pattern, (NM, TransposableNM)):
        found += [bitmask, *_csr(entry, counts, signs)]
    return _best(entry, found, counts, pattern)


def _overhead(entry: TensorEntry) -> int:
    """Bytes that the description and two more entries of the header may take: a bound, quotes of quotes included."""
    return 500 + 4 * len(json.dumps(json.dumps(entry.name))) + 60 * len(entry.shape)


def _count(entry: TensorEntry, read: Reader, axis: int, blocks: tuple[int, ...]) -> _Counts:
    shape = entry.shape
    view = View(
        prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]), max(blocks, default=1), entry.itemsize
    )
    counts = _Counts()
    for piece in pieces(view):
        counts.add(read(view, piece), entry.dtype, blocks)
        if counts.most and all(most > 0.97 * block for block, most in counts.most.items()):
            blocks = ()  # too full for any pattern: from here on only count
    return counts


def _combinations(
    entry: TensorEntry, axis: int, counts: _Counts, pattern: Pattern | None, signs: bool
) -> Iterator[Coding]:
    for block, most in counts.most.items():
        obeys = not isinstance(pattern, (NM, TransposableNM)) or most <= pattern.keep
        if obeys and most < block and (block <= entry.shape[axis] or pattern is not None):
            yield Coding(entry.dtype, entry.shape, "combination", most, block, axis, signs=signs)


def _csr(entry: TensorEntry, counts: _Counts, signs: bool) -> Iterator[Coding]:
    coding = Coding(entry.dtype, entry.shape, "csr", nonzeros=counts.nonzeros)
    short = prod(entry.shape[1:]) < 1 << 32
    if not signs and short and coding.dense_bytes <= MAX_EXPANSION * coding.nbytes:
        yield coding


def _best(entry: TensorEntry, found: list[Coding], counts: _Counts, pattern: Pattern | None) -> Ruling:
    tally = (counts.nonzeros, counts.negative_zeros)
    if not found:
        return Ruling(None, f"does not obey {pattern}", *tally)
    best = min(found, key=lambda coding: coding.nbytes)
    if best.nbytes + _overhead(entry) > entry.nbytes:
        return Ruling(None, "would not shrink", *tally)
    return Ruling(best, "smallest", *tally)
