"""Flags and small numbers as bits: packing, unpacking, and moving values by flags.

A byte of flags is looked up in tables of 256 rows. A boolean index would branch at every weight: the tables
are three to eight times as fast.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Bytes", "gather", "pack_flags", "pack_numbers", "popcounts", "scatter", "unpack_numbers"]

Array: TypeAlias = npt.NDArray[Any]
Bytes: TypeAlias = npt.NDArray[np.uint8]


@cache
def popcounts() -> Bytes:
    """Set bits of every byte."""
    flags = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    counts: Bytes = flags.sum(axis=1, dtype=np.uint8)
    return counts


@cache
def _slots() -> tuple[npt.NDArray[np.intp], Bytes]:
    """For every byte and bit: how many set bits come before it (at most 7), and whether it is set."""
    flags = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    before = np.cumsum(flags, axis=1) - flags
    return before.astype(np.intp), flags


@cache
def _places(count: int) -> npt.NDArray[np.intp]:
    """(256, count): where the set bits of every byte are, for the bytes that have exactly so many."""
    places = np.zeros((256, count), np.intp)
    for byte in np.flatnonzero(popcounts() == count):
        places[byte] = [bit for bit in range(8) if byte >> bit & 1]
    return places


def pack_flags(flags: Array) -> Bytes:
    """(..., n) flags -> (..., ceil(n / 8)) bytes, the first flag in the lowest bit."""
    if flags.shape[-1] % 8 == 0:
        flat = np.packbits(np.ascontiguousarray(flags).reshape(-1), bitorder="little")
        return flat.reshape(*flags.shape[:-1], flags.shape[-1] // 8)
    return np.packbits(flags, axis=-1, bitorder="little")


def gather(values: Array, flags: Array) -> Array:
    """The flagged values, in order; both flat and of one length."""
    if values.size % 8 == 0 and values.size:
        packed = np.packbits(flags, bitorder="little")
        counts = popcounts()[packed]
        count = int(counts[0])
        if count > 0 and bool((counts == count).all()):
            places = np.take(_places(count), packed, axis=0)
            places += np.arange(0, values.size, 8)[:, None]
            return np.take(values, places).reshape(-1)
    return values[flags]


def scatter(packed: Bytes, values: Array, size: int) -> Array:
    """The inverse of :func:`gather`: values to the places whose bits are set, zero bits elsewhere.

    Args:
        packed: flat flags, the first in the lowest bit; as many set bits as there are values.
        values: flat unsigned integers.
        size: places.

    Returns:
        (size,) of the type of the values.
    """
    if not values.size:
        return np.zeros(size, values.dtype)
    counts = popcounts()[packed]
    starts = np.cumsum(counts, dtype=np.intp)
    starts -= counts
    before, flags = _slots()
    index = np.take(before, packed, axis=0)
    index += starts[:, None]
    spread = np.take(values, index, mode="clip")  # clipped: unset bits behind the last value
    spread *= np.take(flags, packed, axis=0)
    return spread.reshape(-1)[:size]


def pack_numbers(numbers: Array, bits: int) -> Bytes:
    """Numbers of ``bits`` bits each, one after the other from the lowest bit on; every row ends with a whole
    byte.

    Args:
        numbers: (rows, n) unsigned integers below ``2 ** bits``.
        bits: 1 to 32.

    Returns:
        (rows, ceil(n * bits / 8)).
    """
    rows, count = numbers.shape
    padded = np.zeros((rows, -(-count // 8) * 8), np.uint64)
    padded[:, :count] = numbers
    eights = padded.reshape(rows, -1, 8)
    packed = np.zeros((*eights.shape[:2], bits), np.uint8)
    if bits <= 8:
        word = eights[..., 0].copy()
        for place in range(1, 8):
            word |= eights[..., place] << np.uint64(place * bits)
        packed[:] = word.astype("<u8")[..., None].view(np.uint8)[..., :bits]
    else:
        for place in range(8):
            first, shift = divmod(place * bits, 8)
            word = eights[..., place] << np.uint64(shift)
            for byte in range(-(-(shift + bits) // 8)):
                packed[..., first + byte] |= (word >> np.uint64(8 * byte)).astype(np.uint8)
    return packed.reshape(rows, -1)[:, : -(-count * bits // 8)]


def unpack_numbers(packed: Bytes, bits: int, count: int) -> npt.NDArray[np.uint64]:
    """The inverse of :func:`pack_numbers`: (rows, bytes) -> (rows, count)."""
    rows = packed.shape[0]
    padded = np.zeros((rows, -(-count // 8), max(bits, 8)), np.uint8)
    if packed.shape[1] % bits == 0:
        padded[..., :bits] = packed.reshape(rows, -1, bits)
    else:
        line = np.zeros((rows, padded.shape[1] * bits), np.uint8)
        line[:, : packed.shape[1]] = packed
        padded[..., :bits] = line.reshape(rows, -1, bits)
    numbers = np.zeros((*padded.shape[:2], 8), np.uint64)
    mask = np.uint64((1 << bits) - 1)
    if bits <= 8:
        word = padded.view("<u8")[..., 0]
        for place in range(8):
            numbers[..., place] = (word >> np.uint64(place * bits)) & mask
    else:
        for place in range(8):
            first, shift = divmod(place * bits, 8)
            word = np.zeros(padded.shape[:2], np.uint64)
            for byte in range(-(-(shift + bits) // 8)):
                word |= padded[..., first + byte].astype(np.uint64) << np.uint64(8 * byte)
            numbers[..., place] = (word >> np.uint64(shift)) & mask
    return numbers.reshape(rows, -1)[:, :count]
