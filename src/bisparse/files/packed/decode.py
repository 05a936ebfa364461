"""Stored parts back into one piece of a tensor; whatever does not add up is refused."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb

import numpy as np

from bisparse.files.errors import CheckpointError
from bisparse.files.packed.bits import Array, popcounts, scatter, unpack_numbers
from bisparse.files.packed.coding import SIGN_BITS, Coding
from bisparse.files.packed.combination import bits_of_codes, code_bits, codes_of_ranks

__all__ = ["decode_piece"]


def decode_piece(coding: Coding, parts: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
    """The inverse of :func:`bisparse.files.packed.encode.encode_piece`.

    Args:
        coding: how it was packed.
        parts: suffix to array, all of the right size; ``counts`` of csr are the entries of each row.
        shape: (rows, length, inner) of the piece.

    Returns:
        Unsigned integers of that shape.

    Raises:
        CheckpointError: an index out of range, a wrong count, values behind the edge, bits that must be zero.
    """
    if coding.kind == "combination":
        return _combination(coding, parts, shape)
    if coding.kind == "csr":
        return _csr(parts, shape)
    return _bitmask(coding, parts, shape)


def _combination(coding: Coding, parts: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
    rows, length, inner = shape
    block, keep = coding.block, coding.keep
    lines = -(-length // block)
    ranks = unpack_numbers(parts["index"].reshape(rows, -1), code_bits(keep, block), lines * inner)
    if int(ranks.max(initial=0)) >= comb(block, keep):
        raise CheckpointError(
            f"its index has the number {int(ranks.max())}, but {coding.text} has {comb(block, keep)}"
        )
    flags = bits_of_codes(codes_of_ranks(ranks.reshape(-1), keep, block), block)
    size = ranks.size * block
    groups = scatter(flags, parts["values"].reshape(-1), size)
    if coding.signs:
        _restore_signs(groups, flags, parts["signs"], rows, coding.dtype)
    split = (
        groups.reshape(rows, lines, inner, block).transpose(0, 1, 3, 2).reshape(rows, lines * block, inner)
    )
    if bool(split[:, length:].any()):
        raise CheckpointError("its index points behind the edge of the tensor")
    inside: Array = split[:, :length]
    return inside


def _restore_signs(groups: Array, flags: Array, signs: Array, rows: int, dtype: str) -> None:
    """Zeros that are not stored among the values get their signs back."""
    dropped = np.unpackbits(flags, count=groups.size, bitorder="little") == 0
    each = int(dropped.sum()) // rows
    bits = np.unpackbits(signs.reshape(rows, -1), axis=1, bitorder="little")
    if bool(bits[:, each:].any()):
        raise CheckpointError("its signs have bits behind the last zero")
    groups[dropped] = bits[:, :each].reshape(-1).astype(groups.dtype) << groups.dtype.type(SIGN_BITS[dtype])


def _bitmask(coding: Coding, parts: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
    rows, length, _ = shape
    index, values = parts["index"].reshape(rows, -1), parts["values"]
    if int(popcounts()[index].sum(dtype=np.int64)) != values.size:
        raise CheckpointError(f"its index has not as many bits set as there are values ({values.size})")
    _refuse_tail(index, length)
    padded = scatter(index.reshape(-1), values, index.size * 8).reshape(rows, -1)
    bits: Array = padded[:, :length]
    if coding.signs:
        signs = parts["signs"].reshape(rows, -1)
        _refuse_tail(signs, length)
        if bool((signs & index).any()):
            raise CheckpointError("its signs belong to values that are not zero")
        minus = np.unpackbits(signs, axis=1, count=length, bitorder="little").astype(bits.dtype)
        bits = bits | minus << bits.dtype.type(SIGN_BITS[coding.dtype])
    return bits.reshape(shape)


def _refuse_tail(packed: Array, length: int) -> None:
    """The last byte of a row may have no bits behind the row's end."""
    if length % 8 and bool((packed[:, -1] >> np.uint8(length % 8)).any()):
        raise CheckpointError("its index points behind the edge of the tensor")


def _csr(parts: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
    rows, length, _ = shape
    columns, counts = parts["index"].astype(np.int64), parts["counts"]
    if columns.size and int(columns.max()) >= length:
        raise CheckpointError(f"its index has column {int(columns.max())}, but its rows have {length}")
    places = np.repeat(np.arange(rows), counts) * length + columns
    if bool((np.diff(places) <= 0).any()):
        raise CheckpointError("its columns are not in order")
    dense = np.zeros(rows * length, parts["values"].dtype)
    dense[places] = parts["values"]
    return dense.reshape(shape)
