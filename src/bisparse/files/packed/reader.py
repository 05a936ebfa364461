"""Reading a packed file as if its tensors were dense: everything that reads checkpoints reads packed ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bisparse.files.errors import CheckpointError
from bisparse.files.packed.bits import Array, popcounts
from bisparse.files.packed.coding import Coding, Part, coding_of
from bisparse.files.packed.combination import code_bits
from bisparse.files.packed.decode import decode_piece
from bisparse.files.packed.pieces import Piece, View, pieces
from bisparse.files.safetensors_header import Header, TensorEntry, encode_header, place_tensors
from bisparse.files.safetensors_reader import SafetensorsFile

__all__ = ["DESCRIPTION", "PackedFile", "open_safetensors", "part_name", "view_of"]

DESCRIPTION = "bisparse.packed"
_VERSION = 1
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def part_name(name: str, suffix: str) -> str:
    """The name under which a part of a packed tensor is stored."""
    return f"{name}.packed.{suffix}"


def view_of(coding: Coding) -> View:
    """How a packed tensor is cut into pieces."""
    outer, length, inner = coding.view
    grouped = coding.kind == "combination"
    return View(outer, length, inner, coding.block if grouped else 1, coding.itemsize, divisible=grouped)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Open a safetensors file; a packed one shows its dense tensors.

    Raises:
        CheckpointError: missing, unreadable, corrupt or hostile.
    """
    file = SafetensorsFile(path)
    if DESCRIPTION not in file.header.metadata:
        return file
    file.close()
    return PackedFile(path)


class PackedFile(SafetensorsFile):
    """An open packed file: its header lists the dense tensors, and their bytes are unpacked when they are
    read.

    The description is checked against what is stored before anything is allocated: every part must be there,
    of exactly the type and size that follow from type, shape and pattern, so a tensor is never more than 1024
    times as large as what is stored of it. Indices and counts are checked as they are read.

    Attributes:
        codings: name to coding, of the tensors that are packed.

    Raises:
        CheckpointError: as for any file; an unknown version; a description that lies.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stored = dict(self._entries)
        self._row_ends: dict[str, Array] = {}
        try:
            self.codings = self._checked(self.header.metadata.get(DESCRIPTION, ""))
            self.header = self._dense_header()
            self.header_bytes = encode_header(self.header)
        except (CheckpointError, ValueError) as error:
            self.close()
            raise CheckpointError(f"{path} is no valid packed file: {error}") from None
        self._entries = {entry.name: entry for entry in self.header.entries}

    def _checked(self, text: str) -> dict[str, Coding]:
        try:
            described = json.loads(text)
        except (ValueError, RecursionError):
            raise CheckpointError("its description is not JSON") from None
        if not isinstance(described, dict) or not isinstance(described.get("tensors"), dict):
            raise CheckpointError("its description has no tensors")
        if described.get("version") != _VERSION:
            version = str(described.get("version"))[:20]
            raise CheckpointError(
                f"it is of version {version}, and this bisparse reads version {_VERSION}: update it"
            )
        codings = {name: coding_of(name, fields) for name, fields in described["tensors"].items()}
        for name, coding in codings.items():
            if name in self._stored:
                raise CheckpointError(f"{name[:80]!r} is stored twice: packed, and as it is")
            for part in coding.parts():
                self._check_part(name, part)
        return codings

    def _check_part(self, name: str, part: Part) -> None:
        entry = self._stored.get(part_name(name, part.suffix))
        if entry is None:
            raise CheckpointError(f"{name[:80]!r} lacks its {part.suffix}")
        if (entry.dtype, entry.shape) != (part.dtype, part.shape):
            raise CheckpointError(
                f"{entry.name[:80]!r} is {entry.dtype} {list(entry.shape)}, "
                f"but by its description must be {part.dtype} {list(part.shape)}"
            )

    def _dense_header(self) -> Header:
        """The dense tensors in the order of their values, wide types first."""
        found: list[tuple[int, str, str, tuple[int, ...]]] = []
        taken = {part_name(name, part.suffix): name for name, c in self.codings.items() for part in c.parts()}
        for entry in self.header.entries:
            owner = taken.get(entry.name)
            if owner is None:
                found.append((-entry.itemsize, entry.name, entry.dtype, entry.shape))
            elif entry.name == part_name(owner, "values"):
                coding = self.codings[owner]
                found.append((-coding.itemsize, owner, coding.dtype, coding.shape))
        found.sort(key=lambda item: item[0])
        metadata = {key: value for key, value in self.header.metadata.items() if key != DESCRIPTION}
        return Header(place_tensors(item[1:] for item in found), metadata)

    def stored_bytes(self, name: str) -> int:
        """Bytes that a tensor takes in the file."""
        coding = self.codings.get(name)
        return self.entry(name).nbytes if coding is None else coding.nbytes

    def read_into(self, entry: TensorEntry, offset: int, buffer: memoryview) -> None:
        """Fill the buffer with a dense tensor's bytes from ``offset`` on.

        Raises:
            CheckpointError: the file cannot be read, or what it holds does not add up.
        """
        coding = self.codings.get(entry.name)
        if coding is None:
            super().read_into(self._stored[entry.name], offset, buffer)
            return
        size, target = coding.itemsize, np.frombuffer(buffer, np.uint8)
        view = view_of(coding)
        for piece in pieces(view, offset // size, -(-(offset + len(target)) // size)):
            begin = piece.begin(view) * size - offset
            dense = self.read_piece(entry.name, piece).reshape(-1).view(np.uint8)
            low, high = max(begin, 0), min(begin + dense.size, len(target))
            target[low:high] = dense[low - begin : high - begin]

    def read_piece(self, name: str, piece: Piece) -> Array:
        """(rows, count, inner) unsigned integers: one unpacked piece, contiguous.

        Raises:
            CheckpointError: as :meth:`read_into`.
        """
        coding = self.codings[name]
        try:
            parts = (self._grouped if coding.kind == "combination" else self._unstructured)(
                name, coding, piece
            )
            shape = (piece.rows, piece.count, coding.view[2])
            return np.ascontiguousarray(decode_piece(coding, parts, shape))
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: tensor {name[:80]!r} is corrupt: {error}") from None

    def _grouped(self, name: str, coding: Coding, piece: Piece) -> dict[str, Array]:
        """The parts of a piece: those of a row lie one after the other."""
        inner, block = coding.view[2], coding.block
        first, groups = piece.start // block * inner, -(-piece.count // block) * inner
        each = {
            "values": coding.keep * coding.itemsize * 8,
            "index": code_bits(coding.keep, block),
            "signs": block - coding.keep,
        }
        return {
            part.suffix: self._rows(
                name, part, piece, first * each[part.suffix], groups * each[part.suffix], coding
            )
            for part in coding.parts()
        }

    def _rows(self, name: str, part: Part, piece: Piece, first: int, bits: int, coding: Coding) -> Array:
        """Bits ``first`` to ``first + bits`` of each row of a piece (several rows only where that is all of them)."""
        row_bytes = part.nbytes // part.shape[0]
        begin = piece.row * row_bytes + first // 8
        size = piece.rows * row_bytes if piece.rows > 1 else -(-bits // 8)
        dtype = _UNSIGNED[coding.itemsize if part.suffix == "values" else 1]
        return self._part(name, part.suffix, begin, size).view(dtype)

    def _part(self, name: str, suffix: str, begin: int, size: int) -> Array:
        data = np.empty(size, np.uint8)
        super().read_into(self._stored[part_name(name, suffix)], begin, data.data)
        return data

    def _unstructured(self, name: str, coding: Coding, piece: Piece) -> dict[str, Array]:
        ends = self._ends(name, coding)
        first, last = int(ends[piece.row]), int(ends[piece.row + piece.rows])
        width = coding.itemsize
        parts = {
            "values": self._part(name, "values", first * width, (last - first) * width).view(_UNSIGNED[width])
        }
        if coding.kind == "csr":
            columns = 2 if coding.view[1] <= 1 << 16 else 4
            index = self._part(name, "index", first * columns, (last - first) * columns)
            return parts | {
                "index": index.view(_UNSIGNED[columns]),
                "counts": np.diff(ends[piece.row :][: piece.rows + 1]),
            }
        row_bytes = -(-coding.view[1] // 8)
        for part in coding.parts()[1:]:
            parts[part.suffix] = self._part(name, part.suffix, piece.row * row_bytes, piece.rows * row_bytes)
        return parts

    def _ends(self, name: str, coding: Coding) -> Array:
        """(rows + 1,): how many values lie before each row; read and checked once."""
        found = self._row_ends.get(name)
        if found is None:
            found = self._stored_ends(name) if coding.kind == "csr" else self._counted_ends(name, coding)
            if int(found[0]) or int(found[-1]) != coding.nonzeros or bool((np.diff(found) < 0).any()):
                raise CheckpointError(f"its rows do not hold {coding.nonzeros} values in all")
            self._row_ends[name] = found
        return found

    def _stored_ends(self, name: str) -> Array:
        entry = self._stored[part_name(name, "rows")]
        ends: Array = self._part(name, "rows", 0, entry.nbytes).view(_UNSIGNED[entry.itemsize])
        if int(ends.max()) >= 2**62:
            raise CheckpointError("its rows begin behind its end")
        return ends.astype(np.int64)

    def _counted_ends(self, name: str, coding: Coding) -> Array:
        rows, length, _ = coding.view
        row_bytes = -(-length // 8)
        ends = np.zeros(rows + 1, np.int64)
        step = max(1, (1 << 22) // row_bytes)
        for row in range(0, rows, step):
            index = self._part(name, "index", row * row_bytes, min(step, rows - row) * row_bytes)
            ends[row + 1 : row + 1 + step] = popcounts()[index.reshape(-1, row_bytes)].sum(1, dtype=np.int64)
        return np.cumsum(ends)
