"""What a packed (or unpacked) file will hold, and the steps that fill it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bisparse.files.blocks import Block, copy_blocks
from bisparse.files.checkpoint import Checkpoint
from bisparse.files.errors import CheckpointError
from bisparse.files.packed.bits import Array
from bisparse.files.packed.coding import Coding, Part
from bisparse.files.packed.combination import code_bits
from bisparse.files.packed.detect import Reader, Ruling, smallest_coding
from bisparse.files.packed.encode import nonzero_flags
from bisparse.files.packed.pieces import Piece, View, pieces
from bisparse.files.packed.reader import DESCRIPTION, part_name, view_of
from bisparse.files.plan import OutputFile
from bisparse.files.safetensors_header import Header, TensorEntry, encode_header, place_tensors
from bisparse.files.safetensors_types import BITS
from bisparse.files.shards import Shard
from bisparse.pattern import Pattern

__all__ = ["Plan", "Step", "decide", "packed_files", "reader_of", "steps"]

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Step:
    """A part of one tensor on its way.

    Attributes:
        source: where it is read.
        entry: the tensor there.
        coding: how it is packed; ``None``: its bytes are copied.
        part: which piece (packed) or block of bytes (copied).
        target: index of the output file.
        positions: suffix to the first byte in that file; ``""`` for a copy.
        starts: of csr, with the first piece: what stands in ``rows``.
    """

    source: Shard
    entry: TensorEntry
    coding: Coding | None
    part: Piece | Block
    target: int
    positions: Mapping[str, int]
    starts: Array | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Output files, and for each of them the tensors that go into it.

    Attributes:
        files: what is written.
        tensors: for each file: shard, entry, coding, and suffix to the first byte of each part.
    """

    files: tuple[OutputFile, ...]
    tensors: tuple[tuple[tuple[Shard, TensorEntry, Coding | None, Mapping[str, int]], ...], ...]


def reader_of(shard: Shard, entry: TensorEntry) -> Reader:
    """Pieces of one tensor as unsigned integers."""
    dtype = _UNSIGNED[entry.itemsize or 1]

    def read(view: View, piece: Piece) -> Array:
        data = np.empty(piece.size(view) * view.itemsize, np.uint8)
        shard.read_into(entry, piece.begin(view) * view.itemsize, data.data)
        bits: Array = data.view(dtype).reshape(piece.rows, piece.count, view.inner)
        return bits

    return read


def decide(
    checkpoint: Checkpoint, *, pattern: Pattern | None, signed_zeros: bool, threads: int
) -> dict[str, Ruling]:
    """How each tensor of a checkpoint is to be stored, in its order; every tensor is read once or more."""
    found = list(checkpoint.entries())

    def ruling(pair: tuple[Shard, TensorEntry]) -> Ruling:
        shard, entry = pair
        return smallest_coding(entry, reader_of(shard, entry), pattern=pattern, signed_zeros=signed_zeros)

    with ThreadPoolExecutor(threads) as pool:
        rulings = list(pool.map(ruling, found))
    names = {entry.name for _, entry in found}
    decided = {}
    for (_, entry), one in zip(found, rulings, strict=True):
        parts = () if one.coding is None else one.coding.parts()
        clash = any(part_name(entry.name, part.suffix) in names for part in parts)
        decided[entry.name] = Ruling(None, "the name of a part is taken") if clash else one
    return decided


def packed_files(
    checkpoint: Checkpoint, codings: Mapping[str, Coding | None], names: Mapping[str, str]
) -> Plan:
    """Lay out the output.

    Args:
        checkpoint: the input.
        codings: how each tensor is stored.
        names: shard name to the name of the output file; shards with the same are joined.

    Returns:
        Files and what goes where.

    Raises:
        CheckpointError: a tensor that safetensors cannot hold, or a header beyond the format's limit.
    """
    if checkpoint.unstorable:
        raise CheckpointError(
            f"safetensors cannot hold {checkpoint.unstorable[0]!r} (sparse, quantised or complex)"
        )
    groups: dict[str, list[Shard]] = {}
    for shard in checkpoint.shards:
        groups.setdefault(names[shard.name], []).append(shard)
    laid = [_file(name, shards, codings) for name, shards in groups.items()]
    return Plan(tuple(file for file, _ in laid), tuple(tensors for _, tensors in laid))


_Placed = tuple[Shard, TensorEntry, Coding | None, Mapping[str, int]]


def _file(
    name: str, shards: Sequence[Shard], codings: Mapping[str, Coding | None]
) -> tuple[OutputFile, tuple[_Placed, ...]]:
    """One output file: wide types first, so that all data is aligned."""
    stored: list[tuple[str, str, tuple[int, ...]]] = []
    metadata: dict[str, str] = {}
    described: dict[str, object] = {}
    for shard in shards:
        metadata |= shard.header.metadata
        for entry in shard.header.entries:
            coding = codings.get(entry.name)
            if coding is not None:
                described[entry.name] = coding.describe()
            stored += [(stored_name, part.dtype, part.shape) for stored_name, part in _stored(entry, coding)]
    if described:
        metadata[DESCRIPTION] = json.dumps({"version": 1, "tensors": described}, separators=(",", ":"))
    stored.sort(key=lambda item: -BITS[item[1]])
    entries = place_tensors(stored)
    try:
        header = encode_header(Header(entries, metadata))
    except ValueError as error:
        raise CheckpointError(f"{name} cannot be written: {error}") from None
    begins = {entry.name: len(header) + entry.begin for entry in entries}
    placed = tuple(
        (shard, entry, codings.get(entry.name), _positions(entry, codings.get(entry.name), begins))
        for shard in shards
        for entry in shard.header.entries
    )
    return OutputFile(name, header, (), len(header) + sum(entry.nbytes for entry in entries)), placed


def _stored(entry: TensorEntry, coding: Coding | None) -> list[tuple[str, Part]]:
    if coding is None:
        return [(entry.name, Part("", entry.dtype, entry.shape))]
    return [(part_name(entry.name, part.suffix), part) for part in coding.parts()]


def _positions(entry: TensorEntry, coding: Coding | None, begins: Mapping[str, int]) -> dict[str, int]:
    return {part.suffix: begins[name] for name, part in _stored(entry, coding)}


def steps(plan: Plan) -> Iterator[Step]:
    """Everything to do, in a fixed order; entries of csr and bitmask tensors are counted when their turn comes."""
    for target, tensors in enumerate(plan.tensors):
        for shard, entry, coding, begins in tensors:
            if coding is None:
                for block in copy_blocks(entry):
                    yield Step(shard, entry, None, block, target, {"": begins[""] + block.offset})
            elif coding.kind == "combination":
                yield from _grouped_steps(shard, entry, coding, begins, target)
            else:
                yield from _counted_steps(shard, entry, coding, begins, target)


def _grouped_steps(
    shard: Shard, entry: TensorEntry, coding: Coding, begins: Mapping[str, int], target: int
) -> Iterator[Step]:
    """Positions follow from the pattern: rows are of one size, and so are groups of eight within a row."""
    view = view_of(coding)
    for piece in pieces(view):
        share = piece.start // view.block * view.inner
        positions = {}
        for part in coding.parts():
            row_bytes = part.nbytes // part.shape[0]
            # A part of a row begins with a group whose number is a multiple of 8, hence with a whole byte.
            inside = (
                share * coding.keep * coding.itemsize
                if part.suffix == "values"
                else _bits(coding, part) * share // 8
            )
            positions[part.suffix] = begins[part.suffix] + piece.row * row_bytes + inside
        yield Step(shard, entry, coding, piece, target, positions)


def _bits(coding: Coding, part: Part) -> int:
    """Bits of a group in one of its parts."""
    if part.suffix == "values":
        return 8 * coding.keep * coding.itemsize
    return code_bits(coding.keep, coding.block) if part.suffix == "index" else coding.block - coding.keep


def _counted_steps(
    shard: Shard, entry: TensorEntry, coding: Coding, begins: Mapping[str, int], target: int
) -> Iterator[Step]:
    """Positions follow from the number of non-zeros before each piece."""
    view, read = view_of(coding), reader_of(shard, entry)
    whole = list(pieces(view))
    counts = [
        nonzero_flags(read(view, piece), entry.dtype).sum(axis=(1, 2), dtype=np.int64) for piece in whole
    ]
    ends = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum()
    if int(ends[-1]) != coding.nonzeros:
        raise CheckpointError(f"{entry.name} changed while it was read")
    parts = {part.suffix: part for part in coding.parts()}
    for piece in whole:
        first = int(ends[piece.row])
        positions = {"values": begins["values"] + first * coding.itemsize}
        for suffix in parts.keys() - {"values", "rows"}:
            each = parts[suffix].nbytes // max(parts[suffix].shape[0], 1)
            positions[suffix] = begins[suffix] + each * (first if coding.kind == "csr" else piece.row)
        if "rows" in parts:
            positions["rows"] = begins["rows"]
        starts = (
            ends.astype(f"<u{parts['rows'].nbytes // len(ends)}")
            if "rows" in parts and piece.row == 0
            else None
        )
        yield Step(shard, entry, coding, piece, target, positions, starts)
