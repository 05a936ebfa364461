"""The safetensors header: what a file says about its tensors, checked before anything else is believed.

A file is 8 bytes (little-endian length n), n bytes of JSON, then the tensors' bytes. The JSON maps each name
to ``{"dtype", "shape", "data_offsets": [begin, end]}``; ``__metadata__`` maps strings to strings. Offsets
count from the end of the header and must cover the data exactly, without holes or overlaps.
Source: the format description of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from bisparse.files.errors import CheckpointError
from bisparse.files.safetensors_types import BITS

__all__ = [
    "MAX_HEADER",
    "Header",
    "TensorEntry",
    "encode_header",
    "parse_header",
    "place_tensors",
]

MAX_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        name: its name.
        dtype: the format's name of its type, for example ``"BF16"``.
        shape: its shape.
        begin: first byte, counted from the end of the header.
        end: first byte after it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.end - self.begin

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per element; 0 for the sub-byte types, whose elements have no address of their own."""
        return BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: the tensors in the order of their bytes, and the metadata."""

    entries: tuple[TensorEntry, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.entries[-1].end if self.entries else 0


def parse_header(text: bytes, data_bytes: int) -> Header:
    """Read and check the JSON part of a file.

    Args:
        text: the JSON bytes, without the length before them.
        data_bytes: bytes that follow the header in the file.

    Returns:
        Entries in the order of their offsets (ties: empty tensors, by name), and the metadata.

    Raises:
        CheckpointError: not JSON, an unknown type, a shape that does not fit its bytes, offsets that overlap,
            leave holes or pass the end of the file, names given twice. Nothing is allocated beyond the
            header.
    """
    try:
        parsed = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its header is not JSON ({_brief(error)})") from None
    if not isinstance(parsed, dict):
        raise CheckpointError("its header is not a JSON object")
    metadata = _checked_metadata(parsed.pop("__metadata__", {}))
    entries = sorted(
        (_checked_entry(name, value) for name, value in parsed.items()),
        key=lambda e: (e.begin, e.end, e.name),
    )
    _check_cover(entries, data_bytes)
    return Header(tuple(entries), metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CheckpointError("its header gives a name twice")
    return found


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split("\n")[0][:80]


def _checked_metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise CheckpointError("its metadata is not a map from text to text")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _checked_entry(name: str, value: object) -> TensorEntry:
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CheckpointError("a tensor's name is not valid Unicode")
    shown = repr(name if len(name) < 80 else name[:77] + "...")
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise CheckpointError(f"tensor {shown} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"tensor {shown} has the unknown type {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or len(shape) > 64 or not all(map(_is_size, shape)) or _overflows(shape):
        raise CheckpointError(f"tensor {shown} has no valid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise CheckpointError(f"tensor {shown} has no valid data_offsets")
    begin, end = offsets
    bits = prod(shape) * BITS[dtype]
    if bits % 8 or end - begin != bits // 8:
        raise CheckpointError(
            f"tensor {shown} ({dtype}, {_shown_shape(shape)}) does not fill bytes {begin} to {end}"
        )
    return TensorEntry(name, dtype, tuple(shape), begin, end)


def _overflows(shape: list[int]) -> bool:
    """Whether the strides of a tensor of this shape would not fit 64 bits, even if it is empty."""
    return prod(max(size, 1) for size in shape) >= 2**63


def _shown_shape(shape: list[int]) -> str:
    return str(shape) if len(shape) <= 8 else f"[{shape[0]}, ... {len(shape)} dimensions]"


def _check_cover(entries: Iterable[TensorEntry], data_bytes: int) -> None:
    position, previous = 0, "the header"
    for entry in entries:
        if entry.begin != position:
            fault = "overlaps" if entry.begin < position else "leaves a hole after"
            raise CheckpointError(f"tensor {entry.name[:80]!r} {fault} {previous[:80]!r}")
        position, previous = entry.end, entry.name
    if position > data_bytes:
        raise CheckpointError(f"it is truncated: its tensors take {position} bytes, it holds {data_bytes}")
    if position < data_bytes:
        raise CheckpointError(f"it holds {data_bytes - position} bytes that belong to no tensor")


def place_tensors(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[TensorEntry, ...]:
    """Lay tensors out one after the other.

    Args:
        tensors: (name, dtype name, shape) in the order wanted. Wide types first keeps every tensor aligned,
            as other writers do: sort by ``-itemsize`` for that.

    Returns:
        Their entries.

    Raises:
        ValueError: a shape whose sub-byte elements do not fill whole bytes.
    """
    entries: list[TensorEntry] = []
    position = 0
    for name, dtype, shape in tensors:
        size, rest = divmod(prod(shape) * BITS[dtype], 8)
        if rest:
            raise ValueError(f"tensor {name!r} of type {dtype} and shape {shape} does not fill whole bytes")
        entries.append(TensorEntry(name, dtype, tuple(shape), position, position + size))
        position += size
    return tuple(entries)


def encode_header(header: Header) -> bytes:
    """The bytes before the data: length, JSON, and blanks up to a multiple of 8, so that the data is aligned.

    Raises:
        ValueError: the header would pass the format's limit of 100 MB.
    """
    fields: dict[str, object] = {"__metadata__": dict(header.metadata)} if header.metadata else {}
    for entry in header.entries:
        fields[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes passes the format's limit of {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text
