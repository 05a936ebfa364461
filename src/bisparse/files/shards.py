"""What tensors are read from: a shard is a header and a way to get at bytes, on disk or in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from bisparse.files.safetensors_header import Header, TensorEntry, encode_header, place_tensors
from bisparse.files.safetensors_types import dtype_name

__all__ = ["MemoryShard", "Shard", "is_storable", "texts_of", "tied_names"]


class Shard(Protocol):
    """One source of tensors."""

    @property
    def name(self) -> str:
        """Name of the file that the shard is written to, when it is written as a file of its own."""

    @property
    def header(self) -> Header:
        """What it holds."""

    @property
    def header_bytes(self) -> bytes:
        """The header as it is written."""

    def read_into(self, entry: TensorEntry, offset: int, buffer: memoryview) -> None:
        """Fill the buffer with a tensor's bytes from ``offset`` on."""

    def close(self) -> None:
        """Let go of the source."""


class MemoryShard:
    """Tensors in memory (a loaded pickle), seen as a safetensors shard.

    Tied tensors (same memory, same shape) are held once, under their first name; the metadata maps each
    further name to it, as ``safetensors.torch.save_model`` does. Wide types come first, so that all data is
    aligned.

    Args:
        name: file name of the shard.
        tensors: name to tensor; each :func:`is_storable`.
        metadata: text to keep in the header.
    """

    def __init__(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        self.name = name
        aliases = {other: names[0] for names in tied_names(tensors) for other in names[1:]}
        self._tensors = {key: tensor for key, tensor in tensors.items() if key not in aliases}
        ordered = sorted(self._tensors.items(), key=lambda item: -item[1].element_size())
        entries = place_tensors((key, dtype_name(t.dtype), tuple(t.shape)) for key, t in ordered)
        self.header = Header(entries, dict(metadata) | aliases)
        self.header_bytes = encode_header(self.header)
        self._packed: tuple[str, Tensor] | None = None

    def read_into(self, entry: TensorEntry, offset: int, buffer: memoryview) -> None:
        """Fill the buffer with a tensor's bytes from ``offset`` on."""
        tensor = self._tensors[entry.name]
        if not tensor.is_contiguous():
            if self._packed is None or self._packed[0] != entry.name:
                self._packed = (entry.name, tensor.detach().contiguous())
            tensor = self._packed[1]
        raw = tensor.detach().reshape(-1).view(torch.uint8)[offset : offset + len(buffer)]
        buffer[:] = raw.numpy().data

    def close(self) -> None:
        """Let go of the tensors."""
        self._tensors, self._packed = {}, None


def is_storable(tensor: Tensor) -> bool:
    """Whether safetensors can hold this tensor: strided, plain, in memory, of a type that it has."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    try:
        dtype_name(tensor.dtype)
    except ValueError:
        return False
    return True


def tied_names(tensors: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """Groups of names that are one tensor: the same memory, shape, strides and type."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.numel() and not tensor.is_meta:
            where = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            groups.setdefault(where, []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def texts_of(extras: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Split extra entries into those that fit a header, as JSON texts, and the names of those that do not."""
    texts = {name: _text_of(value) for name, value in extras.items()}
    fit = {name: text for name, text in texts.items() if text is not None}
    return fit, [name for name in extras if name not in fit]


def _text_of(value: Any) -> str | None:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
