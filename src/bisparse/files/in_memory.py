"""Pruning a model that is held in memory, and saving it as a pickle: the way in and out of ``torch.save``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from bisparse.files.checkpoint import Checkpoint
from bisparse.files.errors import CheckpointError
from bisparse.files.masking import NotFiniteError, Tally, mask_block
from bisparse.files.partial import as_output_error
from bisparse.files.safetensors_reader import SafetensorsFile
from bisparse.files.selection import Choice
from bisparse.files.stream import Masker, Progress
from bisparse.pattern import Unstructured

__all__ = ["load_content", "prune_tensors", "save_pickle"]


def load_content(checkpoint: Checkpoint) -> tuple[Any, Mapping[str, Tensor]]:
    """What is to be saved, and the tensors in it by name.

    Returns:
        For a pickle: all that it held, and its model's tensors. Otherwise a plain state dict, in which tied
        names are one tensor.

    Raises:
        CheckpointError: a tensor that PyTorch has no type for, or the file cannot be read.
    """
    if checkpoint.pickle is not None:
        return checkpoint.pickle.content, checkpoint.pickle.tensors
    tensors: dict[str, Tensor] = {}
    for shard, entry in checkpoint.entries():
        if isinstance(shard, SafetensorsFile):
            tensors[entry.name] = shard.tensor(entry.name)
    for first, *others in checkpoint.ties:
        tensors.update(dict.fromkeys(others, tensors[first]))
    return tensors, tensors


def prune_tensors(
    tensors: Mapping[str, Tensor], choices: Sequence[Choice], masker: Masker, progress: Progress | None
) -> list[list[float]]:
    """Mask every chosen tensor in place.

    Returns:
        The sums of every tensor, in the order of the choices; an empty list where it was left.

    Raises:
        CheckpointError: a NaN or an infinity, or chosen tensors that share part of their memory.
    """
    chosen = {choice.name: tensors[choice.name] for choice in choices if choice.chosen}
    _refuse_overlaps(chosen)
    total = sum(tensors[choice.name].nbytes for choice in choices)
    sums: list[list[float]] = []
    done = 0
    for choice in choices:
        tensor = tensors[choice.name]
        sums.append(_prune(tensor, choice, masker).to_list() if choice.chosen else [])
        done += tensor.nbytes
        if progress is not None:
            progress(done, total)
    return sums


def _prune(tensor: Tensor, choice: Choice, masker: Masker) -> Tally:
    values = tensor.detach()
    dense = values.contiguous()
    layout = None if isinstance(masker.pattern, Unstructured) else choice.layout
    try:
        tally = mask_block(dense, layout, masker.pattern, method=masker.method, threads=masker.threads)
    except NotFiniteError as error:
        raise CheckpointError(error.line(choice.name, choice.shape)) from None
    if dense is not values and dense.data_ptr() != values.data_ptr():
        with torch.no_grad():
            values.copy_(dense)
    return tally


def _refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    """Two views of the same memory would be masked twice, with different results."""
    ranges = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _span(tensor), name) for name, tensor in tensors.items()
    )
    for (_, end, name), (begin, _, other) in pairwise(ranges):
        if begin < end:
            raise CheckpointError(
                f"{name!r} and {other!r} share part of their memory: leave one with --ignore"
            )


def _span(tensor: Tensor) -> int:
    """Bytes from a tensor's first to its last entry."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


class _Sink(io.RawIOBase):
    """A file that remembers why writing failed; ``torch.save`` replaces the error by one without a reason."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += os.write(self._fd, view[done:])
        except OSError as error:
            self.error = error
            raise
        return done


@contextmanager
def _sink(path: Path) -> Iterator[_Sink]:
    with path.open("wb", buffering=0) as file:
        yield _Sink(file.fileno())


def save_pickle(content: Any, path: Path, *, durable: bool) -> None:
    """``torch.save`` with a clear line when it fails; the bytes do not depend on the file's name.

    Raises:
        OutputError: the disk is full, or refuses.
    """
    with as_output_error(path), _sink(path) as sink:
        try:
            torch.save(content, cast(IO[bytes], sink))
        except RuntimeError:
            if sink.error is not None:
                raise sink.error from None
            raise
        if durable:
            os.fsync(sink._fd)
