"""One piece of a tensor into its stored parts."""

from __future__ import annotations

import numpy as np

from bisparse.files.packed.bits import Array, gather, pack_flags, pack_numbers
from bisparse.files.packed.coding import SIGN_BITS, Coding
from bisparse.files.packed.combination import code_bits, codes_of_flags, ranks_of_codes

__all__ = ["as_groups", "encode_piece", "nonzero_flags", "zero_signs"]


def nonzero_flags(bits: Array, dtype: str) -> Array:
    """Where the value is neither 0.0 nor -0.0, from its bits."""
    if dtype not in SIGN_BITS:
        flags: Array = bits != 0
    else:
        flags = np.left_shift(bits, bits.dtype.type(1)) != 0
    return flags


def zero_signs(bits: Array, dtype: str) -> Array:
    """Where the value is -0.0."""
    flags: Array = bits == bits.dtype.type(1 << SIGN_BITS[dtype])
    return flags


def as_groups(bits: Array, block: int) -> Array:
    """(rows, length, inner) -> (rows * groups * inner, block), the last group of a row filled up with zero bits."""
    rows, length, inner = bits.shape
    lines = -(-length // block)
    if length % block:
        padded = np.zeros((rows, lines * block, inner), bits.dtype)
        padded[:, :length] = bits
        bits = padded
    split = bits.reshape(rows, lines, block, inner)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 2)).reshape(-1, block)


def encode_piece(coding: Coding, bits: Array) -> dict[str, Array]:
    """Pack whole rows, or a part of one that begins with a group whose number is a multiple of 8.

    Args:
        coding: how.
        bits: (rows, length, inner) unsigned integers.

    Returns:
        Suffix to array, without ``rows`` of csr: their bytes follow those of the pieces before. Columns of csr are
        within the row.
    """
    if coding.kind == "combination":
        return _combination(coding, bits)
    flat = bits.reshape(bits.shape[0], -1)
    flags = nonzero_flags(flat, coding.dtype)
    values = gather(flat.reshape(-1), flags.reshape(-1))
    if coding.kind == "csr":
        width = np.uint16 if flat.shape[1] <= 1 << 16 else np.uint32
        return {
            "values": values,
            "index": np.nonzero(flags)[1].astype(width),
            "counts": flags.sum(1, dtype=np.int64),
        }
    parts = {"values": values, "index": pack_flags(flags)}
    return parts | ({"signs": pack_flags(zero_signs(flat, coding.dtype))} if coding.signs else {})


def _combination(coding: Coding, bits: Array) -> dict[str, Array]:
    rows = bits.shape[0]
    groups = as_groups(bits, coding.block)
    flags = nonzero_flags(groups, coding.dtype)
    _fill(flags, coding.keep)
    ranks = ranks_of_codes(codes_of_flags(flags), coding.keep, coding.block)
    bits_each = code_bits(coding.keep, coding.block)
    parts = {
        "values": gather(groups.reshape(-1), flags.reshape(-1)),
        "index": pack_numbers(ranks.reshape(rows, -1), bits_each),
    }
    if coding.signs:
        dropped = zero_signs(groups, coding.dtype)[~flags]
        parts["signs"] = pack_flags(dropped.reshape(rows, -1))
    return parts


def _fill(flags: Array, keep: int) -> None:
    """Groups with fewer than ``keep`` non-zeros keep their first zeros, too: every group has as many values."""
    counts = flags.sum(axis=1, dtype=np.uint8)
    short = np.flatnonzero(counts < keep)
    if not short.size:
        return
    chosen = flags[short]
    zeros = ~chosen
    wanted = (keep - counts[short])[:, None]
    chosen |= zeros & (np.cumsum(zeros, axis=1, dtype=np.uint8) <= wanted)
    flags[short] = chosen
