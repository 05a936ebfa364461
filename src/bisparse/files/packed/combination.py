"""Which N of M are kept, as one number below C(M, N).

The masks with N of M bits set, ordered as integers (bit 0 = first place), are numbered from 0. The number of
a mask with places p_1 < ... < p_N is C(p_1, 1) + ... + C(p_N, N): the combinatorial number system. It takes
ceil(log2 C(M, N)) bits, never more than M - 1.

Masks are split into a low part of 16 bits and the rest: a table counts the masks before each upper part,
another numbers the low parts of equal weight. Tables have at most 65536 entries. Cost: a few passes.
Source: D. E. Knuth, The Art of Computer Programming 4A, section 7.2.1.3, theorem L.
"""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from bisparse.files.packed.bits import Array

__all__ = ["MAX_BLOCK", "bits_of_codes", "code_bits", "codes_of_flags", "codes_of_ranks", "ranks_of_codes"]

MAX_BLOCK = 32
_LOW = 16
Codes = npt.NDArray[np.int64]


def code_bits(keep: int, block: int) -> int:
    """Bits of one number."""
    return max(1, (comb(block, keep) - 1).bit_length())


@cache
def _weights() -> Codes:
    """Set bits of every 16-bit number."""
    numbers = np.arange(1 << _LOW)
    return sum(((numbers >> bit & 1) for bit in range(_LOW)), start=np.zeros_like(numbers))


@cache
def _low_parts() -> tuple[Codes, Codes, Codes]:
    """16-bit numbers by weight, then size; where each weight begins; and each number's place within its weight."""
    order = np.argsort(_weights(), kind="stable")
    begins = np.concatenate(([0], np.cumsum(np.bincount(_weights(), minlength=_LOW + 1))))
    ranks = np.empty_like(order)
    ranks[order] = np.arange(order.size) - begins[_weights()[order]]
    return order, begins, ranks


@cache
def _upper(keep: int, block: int) -> tuple[Codes, Codes]:
    """For every upper part: how many masks have a smaller one, and how many low bits are set beside it."""
    low = min(block, _LOW)
    rest = keep - _weights()[: 1 << (block - low)]
    possible = np.array([comb(low, int(k)) if 0 <= k <= low else 0 for k in rest], np.int64)
    return np.cumsum(possible) - possible, np.clip(rest, 0, low)


def codes_of_flags(flags: Array) -> Codes:
    """(n, M) flags -> (n,) integers, the first flag in the lowest bit."""
    count, block = flags.shape
    if block in (8, 16, 32):
        packed = np.packbits(flags.reshape(-1), bitorder="little").view(f"<u{block // 8}")
        return packed.astype(np.int64)
    codes = np.zeros(count, np.int64)
    for place in range(block):
        codes |= flags[:, place].astype(np.int64) << place
    return codes


def ranks_of_codes(codes: Codes, keep: int, block: int) -> Codes:
    """The numbers of masks that have exactly ``keep`` of ``block`` bits set."""
    before, _ = _upper(keep, block)
    _, _, ranks = _low_parts()
    if block <= _LOW:
        found: Codes = np.take(ranks, codes)
    else:
        found = np.take(before, codes >> _LOW) + np.take(ranks, codes & ((1 << _LOW) - 1))
    return found


def codes_of_ranks(ranks: npt.NDArray[Any], keep: int, block: int) -> Codes:
    """The inverse of :func:`ranks_of_codes`; every number must be below C(M, N)."""
    before, rest = _upper(keep, block)
    order, begins, _ = _low_parts()
    ranks = ranks.astype(np.int64)
    if block <= _LOW:
        whole: Codes = np.take(order, ranks + begins[keep])
        return whole
    upper = np.searchsorted(before, ranks, side="right") - 1
    # Upper parts without any mask share the count of their successor: the last of equal counts has masks.
    low: Codes = np.take(order, begins[rest[upper]] + ranks - before[upper])
    return low | (upper << _LOW)


def bits_of_codes(codes: Codes, block: int) -> npt.NDArray[np.uint8]:
    """(n,) masks -> their flags one after the other, as bytes with the first flag in the lowest bit."""
    if block in (8, 16, 32):
        return codes.astype(f"<u{block // 8}").view(np.uint8)
    if block == 4 and codes.size % 2 == 0:
        return (codes[0::2] | codes[1::2] << 4).astype(np.uint8)
    flags = np.empty((codes.size, block), np.uint8)
    for place in range(block):
        flags[:, place] = codes >> place & 1
    return np.packbits(flags.reshape(-1), bitorder="little")
