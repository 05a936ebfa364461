"""Loading packed files into dense tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from bisparse.files.blocks import copy_blocks
from bisparse.files.checkpoint import Checkpoint, open_checkpoint
from bisparse.files.errors import CheckpointError
from bisparse.files.packed.bits import Array
from bisparse.files.packed.pieces import Piece, View, pieces
from bisparse.files.packed.reader import PackedFile, view_of
from bisparse.files.safetensors_header import TensorEntry
from bisparse.files.safetensors_types import torch_dtype
from bisparse.files.shards import Shard
from bisparse.nn.packed_layer import PackedLayer

__all__ = ["load_packed", "load_packed_"]

Model = TypeVar("Model", bound=nn.Module)


@overload
def load_packed(path: str | Path, model: None = None, *, threads: int | None = None) -> dict[str, Tensor]: ...
@overload
def load_packed(path: str | Path, model: Model, *, threads: int | None = None) -> Model: ...


def load_packed(
    path: str | Path, model: Model | None = None, *, threads: int | None = None
) -> dict[str, Tensor] | Model:
    """Load a packed file (any safetensors file or folder will do) as dense tensors, every bit as it was saved.

    The file is not trusted: sizes are checked before memory is allocated, indices and counts while they are read.

    Args:
        path: a ``.safetensors`` file, or a folder of them.
        model: load it into this model, as :func:`load_packed_` does.
        threads: upper limit; ``None`` = all cores.

    Returns:
        Name to tensor, tied names being one tensor; or the model.

    Raises:
        CheckpointError: missing, corrupt or hostile; one line says why.
        RuntimeError: the model has other names or shapes.
    """
    if model is not None:
        return load_packed_(model, path, threads=threads)
    with open_checkpoint(path) as checkpoint:
        tensors = {entry.name: _allocate(checkpoint, entry) for _, entry in checkpoint.entries()}
        jobs = (
            job for shard, entry in checkpoint.entries() for job in _jobs(shard, entry, tensors[entry.name])
        )
        with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(lambda job: job(), jobs):
                pass  # raises what went wrong
        for first, *others in checkpoint.ties:
            tensors.update(dict.fromkeys(others, tensors[first]))
    return tensors


def load_packed_(model: Model, path: str | Path, *, threads: int | None = None) -> Model:
    """Load a packed file into a model, in place.

    Args:
        model: its names and shapes are those of the file; values are converted to its types and devices. Packed layers
            take dense weights that obey their patterns. Of tied names the file may hold one.
        path: as for :func:`load_packed`.
        threads: upper limit; ``None`` = all cores.

    Returns:
        The model.

    Raises:
        CheckpointError: missing, corrupt or hostile; the model is unchanged.
        RuntimeError: the model has other names or shapes.
        ValueError: the weight of a packed layer does not obey the layer's pattern.
    """
    tensors = load_packed(path, threads=threads)
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer):
            _repack(module, f"{name}." if name else "", tensors)
    _complete_ties(model, tensors)
    model.load_state_dict(tensors)
    return model


def _repack(layer: PackedLayer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Replace a dense weight by the parts of a packed layer, of that layer's pattern."""
    weight = tensors.pop(f"{prefix}weight", None)
    if weight is not None:
        try:
            packed = layer.pack(weight)
        except ValueError as error:
            raise ValueError(f"{prefix}weight: {error}") from error
        parts = {"values": packed.values, "index": packed.index, "free": packed.free}
        tensors.update({prefix + name: part for name, part in parts.items() if part is not None})


def _complete_ties(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Add names that the file leaves out because, in the model, they are another name of what it holds."""
    state = model.state_dict(keep_vars=True)
    held = {id(tensor): tensors[name] for name, tensor in state.items() if name in tensors}
    for name, tensor in state.items():
        if name not in tensors and id(tensor) in held:
            tensors[name] = held[id(tensor)]


def _allocate(checkpoint: Checkpoint, entry: TensorEntry) -> Tensor:
    dtype = torch_dtype(entry.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{checkpoint.path}: {entry.name!r} has type {entry.dtype}, which PyTorch lacks"
        )
    return torch.empty(entry.shape, dtype=dtype)


def _jobs(shard: Shard, entry: TensorEntry, tensor: Tensor) -> Iterator[Callable[[], None]]:
    """Calls that fill a tensor, each a part of it."""
    if not entry.nbytes:
        return
    data: Array = tensor.reshape(-1).view(torch.uint8).numpy()
    coding = shard.codings.get(entry.name) if isinstance(shard, PackedFile) else None
    if coding is None or not isinstance(shard, PackedFile):
        for block in copy_blocks(entry):
            yield partial(shard.read_into, entry, block.offset, data[block.offset :][: block.nbytes].data)
        return
    view = view_of(coding)
    for piece in pieces(view):
        yield partial(_unpack, shard, entry.name, piece, view, data)


def _unpack(file: PackedFile, name: str, piece: Piece, view: View, data: Array) -> None:
    begin, size = piece.begin(view) * view.itemsize, piece.size(view) * view.itemsize
    data[begin : begin + size] = file.read_piece(name, piece).reshape(-1).view("u1")
