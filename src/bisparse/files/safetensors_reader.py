"""Reading safetensors files with bounded memory: the header is checked, tensors come by pieces."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from bisparse.files.errors import CheckpointError
from bisparse.files.safetensors_header import MAX_HEADER, Header, TensorEntry, parse_header
from bisparse.files.safetensors_types import torch_dtype

__all__ = ["SafetensorsFile"]


class SafetensorsFile:
    """An open safetensors file. Its header is checked on opening; bytes are read where and when asked for.

    Positional reads into the caller's buffer, not a mapping: mapped pages would count as resident memory, and
    a file that shrinks meanwhile would kill the process. Reads of several threads do not disturb one another.

    Attributes:
        path: the file.
        name: its name without the folder.
        header: its checked header.
        header_bytes: the header as it stands in the file, with its length.

    Raises:
        CheckpointError: missing, unreadable or corrupt; the line names the file and the fault.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
        try:
            self.header_bytes, self.header = self._read_header()
            self._data_start = len(self.header_bytes)
            self._entries = {entry.name: entry for entry in self.header.entries}
        except CheckpointError as error:
            self._file.close()
            raise CheckpointError(f"{path} is no valid safetensors file: {error}") from None
        except OSError as error:
            self._file.close()
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from None

    def _read_header(self) -> tuple[bytes, Header]:
        size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(8) or b""
        if len(start) < 8:
            raise CheckpointError(f"it has {size} bytes, not even a header")
        length = int.from_bytes(start, "little")
        if length > min(size - 8, MAX_HEADER):
            limit = "the file is shorter" if length > size - 8 else "the limit is 100 MB"
            raise CheckpointError(f"it claims a header of {length} bytes ({limit})")
        text = self._file.read(length) or b""
        if len(text) < length:
            raise CheckpointError("it is truncated inside its header")
        return start + text, parse_header(text, size - 8 - length)

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def entry(self, name: str) -> TensorEntry:
        """The entry of a tensor.

        Raises:
            KeyError: no tensor of that name.
        """
        return self._entries[name]

    def read_into(self, entry: TensorEntry, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes of a tensor from ``offset`` on.

        Raises:
            CheckpointError: the file ends earlier (it changed since it was opened) or cannot be read.
        """
        position = self._data_start + entry.begin + offset
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file.fileno(), [buffer[done:]], position + done)
            except OSError as error:
                raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from None
            if count == 0:
                raise CheckpointError(f"{self.path} became shorter while it was read")
            done += count

    def tensor(self, name: str) -> Tensor:
        """One whole tensor, read into new memory of exactly its size.

        Raises:
            KeyError: no tensor of that name.
            CheckpointError: PyTorch has no such type, or the file cannot be read.
        """
        entry = self.entry(name)
        dtype = torch_dtype(entry.dtype)
        if dtype is None:
            raise CheckpointError(f"{self.path}: tensor {name!r} has type {entry.dtype}, which PyTorch lacks")
        tensor = torch.empty(entry.shape, dtype=dtype)
        if entry.nbytes:
            raw = tensor.reshape(-1).view(torch.uint8).numpy()
            self.read_into(entry, 0, raw.data)
        return tensor
