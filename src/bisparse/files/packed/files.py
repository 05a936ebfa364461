"""Packing and unpacking from file to file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bisparse.files.checkpoint import (
    INDEX_NAME,
    PACKED_INDEX_NAME,
    PACKED_SINGLE_NAME,
    SINGLE_NAME,
    Checkpoint,
    index_metadata,
    kind_of,
    open_checkpoint,
)
from bisparse.files.output_job import OutputJob
from bisparse.files.packed.coding import Coding
from bisparse.files.packed.detect import Ruling
from bisparse.files.packed.plan import Plan, decide, packed_files, steps
from bisparse.files.packed.report import PackedTensor, PackReport
from bisparse.files.packed.stream import write_steps
from bisparse.files.partial import PartialOutput, as_output_error, finish_interrupted
from bisparse.files.plan import fingerprint
from bisparse.files.replacing import refuse_losing_input
from bisparse.files.stream import Progress, Target
from bisparse.pattern import Pattern, parse_pattern

__all__ = ["pack_file", "unpack_file", "write_checkpoint"]


def pack_file(
    source: str | Path,
    output: str | Path,
    *,
    pattern: str | Pattern | None = None,
    signed_zeros: bool = True,
    force: bool = False,
    threads: int | None = None,
    durable: bool = True,
    progress: Progress | None = None,
) -> PackReport:
    """Store every sparse weight of a checkpoint as its kept values and a compact index. Nothing else changes.

    The output is an ordinary safetensors file, or a folder of them with all other files; see ``docs/packed.md`` for the
    format. It is never larger than the input: what does not shrink is stored as it is. Tensors are streamed; the output
    appears when it is complete, and a run that was killed goes on when it is called again.

    Args:
        source: ``.safetensors``, a model's folder, or ``.pt/.pth/.th/.bin``.
        output: ``.safetensors``, or a folder (no suffix), in which ``model`` becomes ``packed`` in the names.
        pattern: consider only this pattern; ``None``: for each tensor the smallest of all that its zeros obey.
        signed_zeros: keep the signs of negative zeros, so that every bit comes back; without, files are smaller where
            masked weights were made by multiplication, and values are equal all the same.
        force: replace an existing output once the new one is complete.
        threads: upper limit; ``None`` = all cores. The output's bits do not depend on it.
        durable: synchronise with the disk before the output gets its name.
        progress: called with (bytes done, bytes in all).

    Returns:
        One row for every tensor, and totals.

    Raises:
        CheckpointError: the input is missing, corrupt or hostile; nothing is left behind.
        OutputError: the output exists or cannot be written.
        ValueError: a suffix that is neither safetensors nor a folder's, or an unknown pattern.
    """
    parsed = None if pattern is None else parse_pattern(pattern)
    workers = threads or len(os.sched_getaffinity(0))
    start = time.perf_counter()
    with open_checkpoint(source) as checkpoint:
        _refuse_pickle(Path(output), "pack")
        rulings = decide(checkpoint, pattern=parsed, signed_zeros=signed_zeros, threads=workers)
        return write_checkpoint(
            checkpoint,
            Path(output),
            rulings,
            packed=True,
            force=force,
            threads=workers,
            durable=durable,
            progress=progress,
            start=start,
        )


def unpack_file(
    source: str | Path,
    output: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    durable: bool = True,
    progress: Progress | None = None,
) -> PackReport:
    """Write a packed checkpoint as an ordinary one: dense tensors with zeros, the same bits as before packing.

    Args:
        source: a packed ``.safetensors`` file or folder.
        output: ``.safetensors`` or a folder.
        force: replace an existing output once the new one is complete.
        threads: upper limit; ``None`` = all cores.
        durable: synchronise with the disk before the output gets its name.
        progress: called with (bytes done, bytes in all).

    Returns:
        One row for every tensor, and totals.

    Raises:
        CheckpointError: the input is missing, corrupt or hostile; nothing is left behind.
        OutputError: the output exists or cannot be written.
        ValueError: a suffix that is neither safetensors nor a folder's.
    """
    start = time.perf_counter()
    with open_checkpoint(source) as checkpoint:
        _refuse_pickle(Path(output), "unpack")
        rulings = {entry.name: Ruling(None, "unpacked") for _, entry in checkpoint.entries()}
        return write_checkpoint(
            checkpoint,
            Path(output),
            rulings,
            packed=False,
            force=force,
            threads=threads or len(os.sched_getaffinity(0)),
            durable=durable,
            progress=progress,
            start=start,
        )


def _refuse_pickle(output: Path, verb: str) -> None:
    if kind_of(output) == "pickle":
        raise ValueError(f"cannot {verb} to {output}: name a .safetensors file, or a folder (no suffix)")


def write_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    rulings: Mapping[str, Ruling],
    *,
    packed: bool,
    force: bool,
    threads: int,
    durable: bool,
    progress: Progress | None,
    start: float,
    stamp: str | None = None,
) -> PackReport:
    """Write a checkpoint with each tensor stored as decided.

    Args:
        checkpoint: the input, open.
        output: a ``.safetensors`` file or a folder.
        rulings: how each tensor is stored.
        packed: whether a folder's files get the names of packed ones.
        force: replace an existing output.
        threads: steps at a time.
        durable: synchronise with the disk.
        progress: called with (bytes done, bytes in all).
        start: when the work began, by ``time.perf_counter``.
        stamp: identifies input and options, for a run that may be continued; ``None``: by the input's files.

    Returns:
        The report.

    Raises:
        CheckpointError: the input cannot be read, or does not fit the format.
        OutputError: the output exists or cannot be written.
    """
    folder = kind_of(output) == "folder"
    finish_interrupted(output, durable=durable)
    codings: dict[str, Coding | None] = {name: ruling.coding for name, ruling in rulings.items()}
    single = PACKED_SINGLE_NAME if packed else SINGLE_NAME
    keep_names = folder and checkpoint.kind == "folder" and len(checkpoint.shards) > 1
    plan = packed_files(
        checkpoint, codings, {s.name: s.name if keep_names else single for s in checkpoint.shards}
    )
    stamp = stamp or fingerprint(checkpoint, plan.files, (), {"verb": "pack" if packed else "unpack"})
    if force:
        refuse_losing_input(checkpoint.path, output)
    partial = PartialOutput(output, stamp, force=force, durable=durable)
    job = OutputJob(checkpoint, partial, durable, _replaced(checkpoint))
    total = sum(entry.nbytes for _, entry in checkpoint.entries())

    def fill(targets: Sequence[Target]) -> list[list[float]]:
        if keep_names:
            _write_index(checkpoint, partial.path, packed=packed)
        return write_steps(
            steps(plan), total, targets, partial.journal, threads=threads, durable=durable, progress=progress
        )

    _, notes = job.run(plan.files, fill, folder=folder)
    return _report(checkpoint, output, rulings, plan, time.perf_counter() - start, notes)


def _replaced(checkpoint: Checkpoint) -> frozenset[str]:
    """Names of a folder that are written in another form."""
    index = (INDEX_NAME, SINGLE_NAME, PACKED_INDEX_NAME, PACKED_SINGLE_NAME)
    return frozenset(
        {*index, *(shard.name for shard in checkpoint.shards)} if checkpoint.kind == "folder" else ()
    )


def _write_index(checkpoint: Checkpoint, folder: Path, *, packed: bool) -> None:
    """Which shard holds which tensor, under the name that packed (or ordinary) folders use."""
    placed = {entry.name: shard.name for shard, entry in checkpoint.entries()}
    total = sum(entry.nbytes for _, entry in checkpoint.entries())
    metadata = index_metadata(checkpoint) | {"total_size": total}
    text = json.dumps({"metadata": metadata, "weight_map": placed}, indent=2, sort_keys=True)
    path = folder / (PACKED_INDEX_NAME if packed else INDEX_NAME)
    with as_output_error(path):
        path.write_text(text + "\n", encoding="utf-8")


def _report(
    checkpoint: Checkpoint,
    output: Path,
    rulings: Mapping[str, Ruling],
    plan: Plan,
    seconds: float,
    notes: list[str],
) -> PackReport:
    rows = []
    for _, entry in checkpoint.entries():
        ruling = rulings[entry.name]
        coding = ruling.coding
        density = None if ruling.nonzeros is None or not entry.numel else ruling.nonzeros / entry.numel
        rows.append(
            PackedTensor(
                entry.name,
                entry.shape,
                entry.dtype,
                "dense" if coding is None else coding.text,
                ruling.reason,
                entry.nbytes if coding is None else coding.nbytes,
                entry.nbytes,
                density,
                ruling.negative_zeros,
            )
        )
    if checkpoint.pickle_only:
        notes = [*notes, f"not carried over, a header holds text only: {', '.join(checkpoint.pickle_only)}"]
    return PackReport(
        source=str(checkpoint.path),
        output=str(output),
        tensors=tuple(rows),
        nbytes=sum(file.size for file in plan.files),
        dense_bytes=sum(row.dense_bytes for row in rows),
        seconds=seconds,
        notes=(*checkpoint.notes, *notes),
    )
