"""Benchmark results that survive an interruption: rows in a JSON file, written one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

__all__ = ["Ledger", "Row"]

Row: TypeAlias = dict[str, "str | int | float | bool | None"]


class Ledger:
    """A list of flat rows, each found again by its key columns, optionally kept in a JSON file.

    A benchmark asks ``row in ledger`` before it measures and calls ``append`` after: run again, it continues
    where it stopped. The file is replaced atomically at every append: it is valid JSON at any moment.

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
        if path is not None and path.exists():
            for row in _read(path):
                self._rows[self._identity(row)] = row

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
        self._rows[self._identity(row)] = dict(row)
        if self.path is not None:
            self._save(self.path)

    def _identity(self, row: Mapping[str, object]) -> tuple[object, ...]:
        missing = [column for column in self._key if column not in row]
        if missing:
            raise ValueError(
                f"row {dict(row)} lacks the key column(s) {missing}: give a row with all of {self._key}"
            )
        return tuple(row[column] for column in self._key)

    def _save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(row) for row in self._rows.values())
        draft = path.with_name(path.name + ".part")
        draft.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        draft.replace(path)


def _read(path: Path) -> list[Row]:
    """The rows of a file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}): move it away or name another file") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a JSON list of rows: move it away or name another file")
    return rows
