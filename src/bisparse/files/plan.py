"""What a run will write: output files with their headers, and the blocks that fill them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bisparse.files.blocks import BLOCK_BYTES, Block, copy_blocks, matrix_blocks
from bisparse.files.checkpoint import SINGLE_NAME, Checkpoint
from bisparse.files.errors import CheckpointError
from bisparse.files.safetensors_header import Header, TensorEntry, encode_header, place_tensors
from bisparse.files.selection import Choice
from bisparse.files.shards import Shard
from bisparse.files.stream import Step
from bisparse.pattern import Pattern, Unstructured
from bisparse.weights import Layout

__all__ = ["OutputFile", "fingerprint", "output_files", "steps", "weight_blocks"]

# Raised when the same input and options give other bytes: an output half done before then starts anew.
_GENERATION = 1


@dataclass(frozen=True, slots=True, eq=False)
class OutputFile:
    """One file to write.

    Attributes:
        name: its name, where the output is a folder.
        header: the bytes before the data.
        parts: for each tensor in order: where it comes from, and its first byte in this file.
        size: bytes of the whole file.
    """

    name: str
    header: bytes
    parts: tuple[tuple[Shard, TensorEntry, int], ...]
    size: int


def output_files(checkpoint: Checkpoint, *, folder: bool) -> list[OutputFile]:
    """The files of a safetensors output: those of the input one to one, or all tensors joined in one.

    A file that is carried over keeps its header byte for byte, and so its order, offsets and metadata.

    Raises:
        CheckpointError: a tensor that the format cannot hold, or a joined header beyond its limit.
    """
    if checkpoint.unstorable:
        raise CheckpointError(
            f"safetensors cannot hold {checkpoint.unstorable[0]!r} (sparse, quantised or complex): "
            "write a .pt file instead"
        )
    if folder and checkpoint.kind == "folder":
        return [_carried(shard.name, shard) for shard in checkpoint.shards]
    if len(checkpoint.shards) == 1:
        return [_carried(SINGLE_NAME, checkpoint.shards[0])]
    return [_joined(checkpoint)]


def _carried(name: str, shard: Shard) -> OutputFile:
    start = len(shard.header_bytes)
    parts = tuple((shard, entry, start + entry.begin) for entry in shard.header.entries)
    return OutputFile(name, shard.header_bytes, parts, start + shard.header.data_bytes)


def _joined(checkpoint: Checkpoint) -> OutputFile:
    sources = sorted(checkpoint.entries(), key=lambda pair: -pair[1].itemsize)
    metadata: dict[str, str] = {}
    for shard in checkpoint.shards:
        metadata |= shard.header.metadata
    placed = place_tensors((entry.name, entry.dtype, entry.shape) for _, entry in sources)
    try:
        start = encode_header(Header(placed, metadata))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit one file: {error}") from None
    parts = tuple(
        (shard, entry, len(start) + new.begin) for (shard, entry), new in zip(sources, placed, strict=True)
    )
    return OutputFile(SINGLE_NAME, start, parts, len(start) + sum(entry.nbytes for entry in placed))


def weight_blocks(entry: TensorEntry, layout: Layout | None, pattern: Pattern) -> Iterator[Block]:
    """The pieces of a weight that can be masked one by one; a whole-tensor pattern has only one."""
    if isinstance(pattern, Unstructured):
        yield Block(0, entry.nbytes, entry.shape)
    elif layout is not None:
        yield from matrix_blocks(entry, layout, pattern.block)


def steps(
    files: Sequence[OutputFile], choices: Mapping[str, Choice], pattern: Pattern
) -> Iterator[tuple[str, Step]]:
    """Every block of every file in a fixed order, with the name of its tensor."""
    for index, file in enumerate(files):
        for shard, entry, position in file.parts:
            choice = choices[entry.name]
            pieces = weight_blocks(entry, choice.layout, pattern) if choice.chosen else copy_blocks(entry)
            for block in pieces:
                yield entry.name, Step(shard, entry, block, index, position + block.offset)


def fingerprint(
    checkpoint: Checkpoint, files: Sequence[OutputFile], choices: Sequence[Choice], options: Mapping[str, str]
) -> str:
    """Identify a run by all that its output depends on, without reading the tensors.

    Input files count by size, modification time and header: change one of them and the run starts anew.
    """
    stamp = hashlib.sha256()
    for path in checkpoint.source_paths():
        status = path.stat()
        stamp.update(f"{path.name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    for file in files:
        stamp.update(file.name.encode() + b"\n" + file.header)
    decided = [(c.name, c.chosen, str(c.layout)) for c in choices]
    stamp.update(json.dumps([_GENERATION, BLOCK_BYTES, decided, sorted(options.items())]).encode())
    return stamp.hexdigest()
