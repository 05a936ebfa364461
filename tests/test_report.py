"""Tables that fit, plain data, JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from bisparse.pattern import parse_pattern
from bisparse.report import Column, Table, counted, format_bytes, format_value, render, to_json, to_plain

COLUMNS = (
    Column("name", "tensor"),
    Column("shape", "shape", "shape", rank=1),
    Column("kept", "kept", "share"),
    Column("why", "why", rank=3),
)
ROWS = [
    {"name": "layers.0.w", "shape": (4, 4), "kept": 0.5, "why": "a long reason that takes much room"},
    {"name": "layers.1.w", "shape": (4, 4), "kept": 0.7, "why": "a long reason that takes much room"},
    {"name": "head", "shape": (), "kept": None, "why": "short"},
]
TABLE = Table("a title", COLUMNS, ROWS, ("a note",))


def test_a_table_to_check_by_eye() -> None:
    assert render(TABLE) == [
        "a title",
        "tensor      shape     kept  why",
        "layers.0.w  4x4     0.5000  a long reason that takes much room",
        "layers.1.w  4x4     0.7000  a long reason that takes much room",
        "head        scalar       -  short",
        "a note",
    ]


def test_long_tables_are_grouped() -> None:
    lines = render(TABLE, limit=2)
    assert lines[2].split()[:4] == ["layers.*.w", "x2", "4x4", "~0.6000"]
    assert lines[3].split()[0] == "head"
    assert lines[4] == "a note"
    assert lines[5].startswith("(x5: five tensors")
    assert len(lines) == 6
    assert render(Table("t", COLUMNS, ROWS[1:]), limit=1) == render(Table("t", COLUMNS, ROWS[1:]))


def test_names_are_folded_not_cut() -> None:
    rows = [{"name": f"encoder.layers.{i}.attention.out.weight", "kept": 0.5} for i in range(2)]
    columns = (Column("name", "tensor"), Column("kept", "kept", "share"))
    assert render(Table("t", columns, rows), 30) == [
        "t",
        "tensor                    kept",
        "encoder.layers.0.attention.out",
        ".weight",
        "                        0.5000",
        "encoder.layers.1.attention.out",
        ".weight",
        "                        0.5000",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_tables_fit_the_width(width: int) -> None:
    lines = render(TABLE, width)
    assert all(len(line) <= max(width, 20) for line in lines)
    assert any(line.startswith("head") for line in lines)
    joined = " ".join(lines)
    assert ("not shown for lack of width" in joined) == (width < 50)


def test_values() -> None:
    assert [counted(n, "layer", "layers") for n in (0, 1, 2000)] == ["0 layers", "1 layer", "2,000 layers"]
    assert format_bytes(999_979_144) == "1 GB"
    assert [format_bytes(n) for n in (0, 999, 1500, 2_000_000_000, 3e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2 GB",
        "3000 TB",
    ]
    assert format_value(12345, "count") == "12,345"
    assert format_value(2048, "bytes") == "2.05 kB"
    assert format_value(0.25, "seconds") == "0.25 s"
    assert format_value(1.23456, "number") == "1.235"
    assert format_value(7, "number") == "7"


@dataclass(frozen=True)
class _Report:
    pattern: object
    gap: float
    items: tuple[object, ...]

    def to_dict(self) -> dict[str, object]:
        return to_plain(self)  # type: ignore[no-any-return]

    def to_table(self) -> Table:
        return TABLE


def test_plain_data_for_json() -> None:
    report = _Report(
        parse_pattern("4:8t"), math.inf, (Path("a/b"), np.float32(0.5), torch.tensor(3), {"k": None, 2: True})
    )
    assert json.loads(to_json(report)) == {
        "pattern": "4:8t",
        "gap": "inf",
        "items": ["a/b", 0.5, 3, {"k": None, "2": True}],
    }
