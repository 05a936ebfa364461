"""Looking into a checkpoint: what each tensor is, how sparse it is, and which patterns it obeys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import lcm, prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bisparse.diversity import mask_diversity
from bisparse.files.blocks import BLOCK_BYTES, Block, copy_blocks, matrix_blocks
from bisparse.files.checkpoint import Checkpoint, open_checkpoint
from bisparse.files.guess import FLOAT_TYPES
from bisparse.files.inspect_report import FileInspection, InspectedTensor, PatternCheck
from bisparse.files.layout_option import LayoutOption
from bisparse.files.masking import bits_of, count_nonzero, magnitude_of, share_of
from bisparse.files.safetensors_header import TensorEntry
from bisparse.files.safetensors_types import torch_dtype
from bisparse.files.selection import Choice, read_as
from bisparse.files.shards import Shard
from bisparse.files.stream import Progress
from bisparse.files.structure import BLOCK_SIZES, Structure
from bisparse.masks.solve import solve_mask
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern
from bisparse.weights import Layout, as_matrices

__all__ = ["inspect_file", "read_corner"]


def inspect_file(
    source: str | Path,
    *,
    pattern: str | Pattern | None = None,
    layout: LayoutOption | None = None,
    progress: Progress | None = None,
) -> FileInspection:
    """Look into a checkpoint; nothing is changed, and memory does not grow with it (pickles are loaded).

    Args:
        source: ``.safetensors``, a folder of them, or ``.pt/.pth/.th/.bin`` (loaded with
            ``weights_only=True``).
        pattern: hold every weight against this pattern: violations both ways, the share of the magnitude that
            its best mask would keep, and how many masks there are.
        layout: how to read tensors that nobody can tell, ``"h.*.c_attn=transposed"``.
        progress: called with (bytes done, bytes in all).

    Returns:
        One row for every tensor, totals and notes.

    Raises:
        CheckpointError: the input is missing, corrupt or hostile.
        ValueError: an unknown pattern or layout.
    """
    parsed = None if pattern is None else parse_pattern(pattern)
    with open_checkpoint(source) as checkpoint:
        choices = {choice.name: choice for choice in read_as(checkpoint, layout)}
        total = sum(entry.nbytes for _, entry in checkpoint.entries())
        rows: list[InspectedTensor] = []
        weights = nonzero = done = 0
        for shard, entry in checkpoint.entries():
            choice = choices[entry.name]
            look = _look(shard, entry, choice, parsed)
            rows.append(look.row(entry, choice, parsed))
            if choice.layout is not None or choice.undecided:
                weights, nonzero = weights + entry.numel, nonzero + look.nonzero
            done += entry.nbytes
            if progress is not None:
                progress(done, total)
        return FileInspection(
            source=str(source),
            kind=checkpoint.kind,
            pattern="" if parsed is None else str(parsed),
            tensors=tuple(rows),
            parameters=sum(prod(row.shape) for row in rows),
            bytes=total,
            weights=weights,
            weight_density=nonzero / weights if weights else 1.0,
            metadata={k: v for shard in checkpoint.shards for k, v in shard.header.metadata.items()},
            notes=_notes(checkpoint),
        )


def _notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    ties = [f"tied: {', '.join(others)} = {first}" for first, *others in checkpoint.ties]
    unstorable = [f"{name}: sparse, quantised or complex, not looked into" for name in checkpoint.unstorable]
    return (*checkpoint.notes, *ties, *unstorable)


@dataclass(slots=True)
class _Look:
    """What the blocks of one tensor showed."""

    structure: Structure
    seen: int = 0
    nonzero: int = 0
    not_finite: int = 0
    magnitude: float = 0.0
    kept: float = 0.0
    matrices: list[tuple[int, ...]] = field(default_factory=list)

    def row(self, entry: TensorEntry, choice: Choice, pattern: Pattern | None) -> InspectedTensor:
        head = (
            entry.name,
            entry.shape,
            entry.dtype,
            entry.nbytes,
            choice.taken_for,
            choice.why,
            choice.undecided,
        )
        density = self.nonzero / self.seen if self.seen else None
        if choice.layout is None:
            return InspectedTensor(*head, density, self.not_finite)
        found = (self.structure.inputs(), self.structure.outputs(), self.structure.transposable())
        return InspectedTensor(
            *head, density, self.not_finite, *found, self._check(entry, choice.layout, pattern)
        )

    def _check(self, entry: TensorEntry, layout: Layout, pattern: Pattern | None) -> PatternCheck | None:
        if pattern is None:
            return None
        inputs, outputs = self.structure.asked_inputs, self.structure.asked_outputs
        satisfied = inputs.over == 0 and (isinstance(pattern, NM) or outputs.over == 0)
        if isinstance(pattern, Unstructured):
            satisfied = self.nonzero <= pattern.kept(entry.numel)
        kept = None if self.not_finite else share_of(self.kept, self.magnitude)
        shape = tuple(as_matrices(torch.empty(entry.shape, device="meta"), layout).shape)
        diversity = _log10_diversity(pattern, shape)
        return PatternCheck(
            satisfied, inputs.groups, inputs.over, outputs.groups, outputs.over, kept, diversity
        )


@lru_cache(maxsize=256)
def _log10_diversity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    return mask_diversity(pattern, shape, max_digits=0).log10


def _look(shard: Shard, entry: TensorEntry, choice: Choice, pattern: Pattern | None) -> _Look:
    asked = (pattern.keep, pattern.block) if isinstance(pattern, (NM, TransposableNM)) else (0, 0)
    look = _Look(Structure(*asked))
    dtype = torch_dtype(entry.dtype)
    if dtype is None or entry.dtype == "BOOL" or dtype.is_complex or not entry.numel:
        return look
    for block in _blocks(entry, choice, pattern):
        data = torch.empty(block.nbytes, dtype=torch.uint8)
        shard.read_into(entry, block.offset, data.numpy().data)
        _look_at(look, data.view(dtype), block, entry.dtype in FLOAT_TYPES, pattern)
    return look


def _blocks(entry: TensorEntry, choice: Choice, pattern: Pattern | None) -> Iterator[Block]:
    """Pieces that cut no group of any block size that is counted."""
    if choice.layout is None or entry.dtype not in FLOAT_TYPES:
        return copy_blocks(entry)
    if isinstance(pattern, Unstructured):
        return iter([Block(0, entry.nbytes, entry.shape, choice.layout)])
    asked = pattern.block if pattern is not None else 1
    return matrix_blocks(entry, choice.layout, lcm(BLOCK_SIZES[-1], asked), BLOCK_BYTES)


def _look_at(look: _Look, flat: Tensor, block: Block, floating: bool, pattern: Pattern | None) -> None:
    """Count one block."""
    bits = bits_of(flat)
    look.seen += bits.size
    look.nonzero += count_nonzero(bits) if flat.is_floating_point() else int(np.count_nonzero(bits))
    if not floating:
        return
    magnitude = magnitude_of(flat)
    look.magnitude += magnitude
    if not np.isfinite(magnitude):
        look.not_finite += int((~torch.isfinite(flat)).sum())
    if block.layout is None:
        return
    weight = as_matrices(flat.view(block.shape), block.layout)
    look.structure.add(np.ascontiguousarray((weight != 0).numpy()))
    if pattern is not None and not look.not_finite:
        look.kept += solve_mask(weight, pattern, magnitude=True).objective


def read_corner(
    source: str | Path, name: str, *, size: int = 64, layout: LayoutOption | None = None
) -> Tensor:
    """The top left corner of a weight's first matrix, as float32: something to look at.

    Raises:
        CheckpointError: the input is missing, corrupt or hostile.
        KeyError: it holds no weight of that name.
    """
    with open_checkpoint(source) as checkpoint:
        choice = next(
            (c for c in read_as(checkpoint, layout) if c.name == name and c.layout is not None), None
        )
        dtype = None if choice is None else torch_dtype(choice.dtype)
        if choice is None or choice.layout is None or dtype is None:
            raise KeyError(name)
        shard, entry = next(pair for pair in checkpoint.entries() if pair[1].name == name)
        block = next(matrix_blocks(entry, choice.layout, size, BLOCK_BYTES))
        data = torch.empty(block.nbytes, dtype=torch.uint8)
        shard.read_into(entry, block.offset, data.numpy().data)
        whole = as_matrices(data.view(dtype).view(block.shape), block.layout or choice.layout)
        return whole[0, :size, :size].float()
