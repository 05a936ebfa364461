"""Steps of a plan, several at a time, to their places; what is written is noted, so that a later run goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice

import numpy as np

from bisparse.files.blocks import Block
from bisparse.files.journal import Journal
from bisparse.files.packed.encode import encode_piece
from bisparse.files.packed.pieces import Piece
from bisparse.files.packed.plan import Step, reader_of
from bisparse.files.packed.reader import view_of
from bisparse.files.stream import Notes, Progress, Target

__all__ = ["write_steps"]


def write_steps(
    steps: Iterable[Step],
    total: int,
    targets: Sequence[Target],
    journal: Journal,
    *,
    threads: int,
    durable: bool = True,
    interval: float = 2.0,
    progress: Progress | None = None,
) -> list[list[float]]:
    """Bring every step to its place in the output; go on where the journal stops.

    Args:
        steps: in a fixed order, the same in every run.
        total: bytes of all tensors of the input, for the progress.
        targets: the output files.
        journal: what an earlier run of the same kind has done.
        threads: steps in work at the same time.
        durable: synchronise before noting.
        interval: seconds between notes.
        progress: called with (bytes done, bytes in all).

    Returns:
        An empty list for every step.

    Raises:
        CheckpointError: the input cannot be read.
        OutputError: the output cannot be written.
    """
    remaining = iter(steps)
    seen = sum(_size(step) for step in islice(remaining, journal.done))
    notes = Notes(journal, targets if durable else (), interval)
    with ExitStack() as stack:
        stack.callback(notes.write)
        syncer = stack.enter_context(ThreadPoolExecutor(1))
        for step in _worked(remaining, targets, threads):
            notes.add(None)
            seen += _size(step)
            if progress is not None:
                progress(seen, total)
            notes.write_when_due(syncer)
    return journal.sums


def _size(step: Step) -> int:
    """Bytes of the input."""
    if isinstance(step.part, Block):
        return step.part.nbytes
    assert step.coding is not None
    view = view_of(step.coding)
    return step.part.size(view) * view.itemsize


def _worked(steps: Iterator[Step], targets: Sequence[Target], threads: int) -> Iterator[Step]:
    """Every step in order, each given out once it is written."""
    pending: deque[tuple[Step, Future[None]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for step in steps:
                pending.append((step, pool.submit(_work, step, targets[step.target])))
                while len(pending) > threads:
                    done, future = pending.popleft()
                    future.result()
                    yield done
            while pending:
                done, future = pending.popleft()
                future.result()
                yield done
        finally:
            for _, future in pending:
                future.cancel()


def _work(step: Step, target: Target) -> None:
    """One step: read, pack, write."""
    if step.coding is None or not isinstance(step.part, Piece):
        assert isinstance(step.part, Block)
        data = np.empty(step.part.nbytes, np.uint8)
        step.source.read_into(step.entry, step.part.offset, data.data)
        target.write(data.data, step.positions[""])
        return
    parts = encode_piece(step.coding, reader_of(step.source, step.entry)(view_of(step.coding), step.part))
    parts.pop("counts", None)
    if step.starts is not None:
        parts["rows"] = step.starts
    for suffix, array in parts.items():
        target.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, step.positions[suffix])
