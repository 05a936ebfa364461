"""Benchmark results that survive an interruption: rows in a JSON file, written one at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

__all__ = ["Ledger", "Row"]

Row: TypeAlias = dict[str, "str | int | float | bool | None"]


class Ledger:
    """A list of flat rows, each found again by its key columns, optionally kept in a JSON file.

    A benchmark asks ``row in ledger`` before it measures and calls ``append`` after: run again, it continues
    where it stopped. The file is replaced atomically at every append: it is valid JSON at any moment. Several
    processes may fill one file: each append takes over the rows of the others, and so does ``refresh``.

    Args:
        path: of the JSON file, read where it exists; its folder is made. ``None`` keeps the rows in memory.
        key: the columns that identify a row.

    Raises:
        ValueError: the file holds something other than a list of rows with all key columns.
    """

    def __init__(self, path: Path | None, key: Sequence[str]) -> None:
        self.path = path
        self._key = tuple(key)
        self._rows: dict[tuple[object, ...], Row] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take over what other processes have appended since; their rows win."""
        if self.path is not None and self.path.exists():
            found = {self._identity(row): row for row in _read(self.path)}
            self._rows = found | {key: row for key, row in self._rows.items() if key not in found}

    @property
    def rows(self) -> list[Row]:
        """Every row, in the order in which they were measured."""
        return list(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: Mapping[str, object]) -> bool:
        return self._identity(row) in self._rows

    def find(self, wanted: Iterable[Mapping[str, object]]) -> list[Row]:
        """The rows with the wanted keys, in that order, each once; keys without a row are passed over."""
        identities = dict.fromkeys(self._identity(row) for row in wanted)
        return [self._rows[identity] for identity in identities if identity in self._rows]

    def append(self, row: Row) -> None:
        """Add a row and save; a row with the same key is replaced."""
        identity = self._identity(row)
        if self.path is None:
            self._rows[identity] = dict(row)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            self.refresh()
            self._rows[identity] = dict(row)
            self._save(self.path)

    def _identity(self, row: Mapping[str, object]) -> tuple[object, ...]:
        missing = [column for column in self._key if column not in row]
        if missing:
            raise ValueError(
                f"row {dict(row)} lacks the key column(s) {missing}: give a row with all of {self._key}"
            )
        return tuple(row[column] for column in self._key)

    def _save(self, path: Path) -> None:
        lines = ",\n".join(json.dumps(row) for row in self._rows.values())
        draft = path.with_name(path.name + ".part")
        draft.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        draft.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the lock is the folder itself, and ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> list[Row]:
    """The rows of a file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}): move it away or name another file") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a JSON list of rows: move it away or name another file")
    return rows
