"""Writing a safetensors file one tensor at a time: sizes first, values when their turn comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from bisparse.files.partial import PartialOutput, as_output_error, reserve
from bisparse.files.safetensors_header import Header, encode_header, place_tensors
from bisparse.files.safetensors_types import dtype_name

__all__ = ["Pending", "write_safetensors"]


@dataclass(frozen=True, slots=True)
class Pending:
    """A tensor that is to be written.

    Attributes:
        name: its name.
        dtype: its type.
        shape: its shape.
        produce: called once, when its turn comes; the tensor may be dropped afterwards.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    produce: Callable[[], Tensor]

    @staticmethod
    def of(name: str, tensor: Tensor) -> Pending:
        """A tensor that is there already."""
        return Pending(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


def write_safetensors(
    path: str | Path,
    tensors: Sequence[Pending],
    metadata: Mapping[str, str] | None = None,
    *,
    force: bool = False,
    durable: bool = True,
) -> None:
    """Write a file that any safetensors reader opens. It appears under its name only when it is complete.

    Tensors are laid out by the width of their type, widest first, so that all of them are aligned, and in the
    given order within a width. Memory: one tensor at a time.

    Args:
        path: what to write.
        tensors: what to write into it.
        metadata: text for the header.
        force: replace an existing file.
        durable: synchronise with the disk before the file gets its name.

    Raises:
        OutputError: the file exists, or cannot be written; nothing is left behind.
        ValueError: a name given twice, a type that the format lacks, or a produced tensor of another shape or
            type than announced.
    """
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise ValueError(f"the name {max(names, key=names.count)!r} is given twice")
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    entries = place_tensors((t.name, dtype_name(t.dtype), t.shape) for t in ordered)
    header = encode_header(Header(entries, metadata or {}))
    partial = PartialOutput(Path(path), uuid4().hex, force=force, durable=durable)  # never continued
    try:
        with as_output_error(partial.path), partial.path.open("wb") as file:
            reserve(file.fileno(), len(header) + sum(entry.nbytes for entry in entries), partial.path)
            file.write(header)
            for pending in ordered:
                file.write(_bytes(pending).numpy().data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.commit()
    except BaseException:
        partial.discard()
        raise


def _bytes(pending: Pending) -> Tensor:
    """The tensor's bytes, after a check that it is what was announced."""
    tensor = pending.produce().detach().cpu()
    if tensor.dtype != pending.dtype or tuple(tensor.shape) != pending.shape:
        raise ValueError(
            f"{pending.name} was announced as {pending.dtype} of shape {pending.shape}, "
            f"but is {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor.contiguous().reshape(-1).view(torch.uint8)
