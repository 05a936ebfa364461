"""The stream: blocks are read, masked and written, several at a time, in bounded memory."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import torch
from torch import Tensor

from bisparse.files.blocks import BLOCK_BYTES, Block
from bisparse.files.errors import CheckpointError
from bisparse.files.journal import Journal
from bisparse.files.masking import NotFiniteError, Tally, mask_block
from bisparse.files.partial import as_output_error
from bisparse.files.safetensors_header import TensorEntry
from bisparse.files.safetensors_types import torch_dtype
from bisparse.files.shards import Shard
from bisparse.pattern import Pattern

__all__ = ["Masker", "Notes", "Progress", "Step", "Target", "write_stream"]

Progress = Callable[[int, int], None]
_MAX_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One block on its way from a shard to an output file.

    Attributes:
        source: where it is read.
        entry: its tensor there.
        block: which part of it.
        target: index of the output file.
        position: first byte in that file.
    """

    source: Shard
    entry: TensorEntry
    block: Block
    target: int
    position: int


@dataclass(frozen=True, slots=True)
class Target:
    """An output file that is open for writing."""

    path: Path
    fd: int

    def write(self, data: memoryview, position: int) -> None:
        """Write all of it.

        Raises:
            OutputError: the disk is full, or refuses.
        """
        done = 0
        with as_output_error(self.path):
            while done < len(data):
                done += os.pwrite(self.fd, data[done:], position + done)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with as_output_error(self.path):
            os.fdatasync(self.fd)


@dataclass(frozen=True, slots=True)
class Masker:
    """How blocks of weights are masked, and by how many threads in all."""

    pattern: Pattern
    method: str
    threads: int

    @property
    def workers(self) -> int:
        """Blocks in work at the same time."""
        return min(self.threads, _MAX_WORKERS)

    def __call__(self, step: Step, data: Tensor) -> Tally | None:
        """Mask the block in place; ``None`` for bytes that are only copied.

        Raises:
            CheckpointError: the tensor holds a NaN or an infinity.
        """
        dtype = torch_dtype(step.entry.dtype)
        if not step.block.shape or dtype is None:
            return None
        weight = data.view(dtype).view(step.block.shape)
        threads = self.threads if step.block.nbytes > BLOCK_BYTES else max(1, self.threads // self.workers)
        try:
            return mask_block(weight, step.block.layout, self.pattern, method=self.method, threads=threads)
        except NotFiniteError as error:
            first = step.block.offset // step.entry.itemsize
            raise CheckpointError(error.line(step.entry.name, step.entry.shape, first)) from None


def write_stream(
    steps: Iterable[Step],
    total: int,
    targets: Sequence[Target],
    journal: Journal,
    masker: Masker,
    *,
    durable: bool = True,
    interval: float = 2.0,
    progress: Progress | None = None,
) -> list[list[float]]:
    """Bring every block from its source, masked, to its place in the output; go on where the journal stops.

    Each worker takes a block through reading, masking and writing. From time to time one more thread
    synchronises with the disk and then notes in the journal what is safe. Memory: a buffer per worker and
    what the solver needs for its block; blocks larger than usual go one at a time.

    Args:
        steps: the blocks in a fixed order, the same in every run.
        total: bytes of all blocks, for the progress.
        targets: the output files.
        journal: what an earlier run of the same kind has done.
        masker: how weights are masked.
        durable: synchronise before noting.
        interval: seconds between notes.
        progress: called with (bytes done, bytes in all) as blocks are done, in this thread.

    Returns:
        The sums of every block, in order; an empty list for a block that is only copied.

    Raises:
        CheckpointError: the input cannot be read any more, or holds a NaN or an infinity.
        OutputError: the output cannot be written.
    """
    remaining = iter(steps)
    seen = sum(step.block.nbytes for step in islice(remaining, journal.done))
    notes = Notes(journal, targets if durable else (), interval)
    with ExitStack() as stack:
        stack.callback(notes.write)  # also after an interruption: what is written need not be done again
        syncer = stack.enter_context(ThreadPoolExecutor(1))
        for step, tally in _worked(remaining, targets, masker):
            notes.add(tally)
            seen += step.block.nbytes
            if progress is not None:
                progress(seen, total)
            notes.write_when_due(syncer)
    return journal.sums


class Notes:
    """What is written but not yet noted in the journal."""

    def __init__(self, journal: Journal, targets: Sequence[Target], interval: float) -> None:
        self._journal = journal
        self._targets = targets
        self._interval = interval
        self._sums: list[list[float]] = []
        self._done = journal.done
        self._last = time.monotonic()
        self._syncing: Future[None] | None = None

    def add(self, tally: Tally | None) -> None:
        """One more block is written."""
        # In this order: a note being written meanwhile never counts a block whose sums are missing.
        self._sums.append([] if tally is None else tally.to_list())
        self._done += 1

    def write_when_due(self, syncer: ThreadPoolExecutor) -> None:
        """Note what is written, in another thread, unless that was done a moment ago."""
        if time.monotonic() - self._last < self._interval:
            return
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._syncing = syncer.submit(self.write)
        self._last = time.monotonic()

    def write(self) -> None:
        """Note what is written. Data first, then the line that speaks of it."""
        done = self._done
        sums = self._sums[: done - self._journal.done]
        for target in self._targets:
            target.sync()
        with as_output_error(self._journal.path):
            self._journal.record(done, sums)
        del self._sums[: len(sums)]


def _worked(
    steps: Iterator[Step], targets: Sequence[Target], masker: Masker
) -> Iterator[tuple[Step, Tally | None]]:
    """Every step in order, each given out once it is written."""
    spare: SimpleQueue[Tensor] = SimpleQueue()
    for _ in range(masker.workers):
        spare.put(torch.empty(BLOCK_BYTES, dtype=torch.uint8))
    pending: deque[tuple[Step, Future[Tally | None]]] = deque()

    def work(step: Step) -> Tally | None:
        buffer = spare.get()
        try:
            return _work(step, buffer[: step.block.nbytes], targets[step.target], masker)
        finally:
            spare.put(buffer)

    def finished(left: int) -> Iterator[tuple[Step, Tally | None]]:
        while len(pending) > left:
            step, future = pending.popleft()
            yield step, future.result()

    with ThreadPoolExecutor(masker.workers) as pool:
        try:
            for step in steps:
                if step.block.nbytes > BLOCK_BYTES:
                    yield from finished(0)
                    large = torch.empty(step.block.nbytes, dtype=torch.uint8)
                    yield step, _work(step, large, targets[step.target], masker)
                else:
                    pending.append((step, pool.submit(work, step)))
                    yield from finished(masker.workers)
            yield from finished(0)
        finally:
            for _, future in pending:
                future.cancel()


def _work(step: Step, buffer: Tensor, target: Target, masker: Masker) -> Tally | None:
    """One block from its source, masked, to its place."""
    data = buffer.numpy().data
    step.source.read_into(step.entry, step.block.offset, data)
    tally = masker(step, buffer)
    target.write(data, step.position)
    return tally
