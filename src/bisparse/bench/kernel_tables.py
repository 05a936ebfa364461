"""Tables of the packed products for the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row
from bisparse.report import plain_number

__all__ = ["kernel_tables"]

_BATCHES = (1, 2, 4, 8, 16, 64)


def kernel_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Every table of ``docs/kernels.md`` by name; cases that were not measured show as ``-``."""
    return {
        "kernel_float32": _by_batch(rows, "float32"),
        "kernel_bfloat16": _by_batch(rows, "bfloat16"),
        "kernel_patterns": _by_pattern(rows),
        "kernel_repacked": _repacked(rows),
        "kernel_gradient": _gradient(rows),
        "kernel_conv": _conv(rows),
        "kernel_machine": str(rows[-1]["machine"]) + "\n" if rows else "not measured yet\n",
    }


def _find(table: Sequence[Row], /, **wanted: object) -> Row | None:
    return next((row for row in table if all(row[name] == value for name, value in wanted.items())), None)


def _ratio(row: Row | None) -> str:
    return "-" if row is None else plain_number(float(row["ratio"] or 0))


def _micro(row: Row | None, side: str) -> str:
    return "-" if row is None else plain_number(float(row[f"{side}_us"] or 0))


def _shapes(rows: Sequence[Row], way: str) -> list[tuple[object, object]]:
    return list(dict.fromkeys((row["rows"], row["columns"]) for row in rows if row["way"] == way))


def _by_batch(rows: Sequence[Row], dtype: str) -> str:
    """Ratios by batch for both orientations at 4:8, with the packed microseconds at batch 1."""
    head = ["shape, product", "dense us at 1", "packed us at 1", *(f"batch {batch}" for batch in _BATCHES)]
    lines = []
    for way, name in (("forward", "x W^T"), ("transposed", "y W")):
        for height, width in _shapes(rows, way):
            wanted: Mapping[str, object] = {"way": way, "rows": height, "columns": width, "dtype": dtype}
            found = [_find(rows, pattern="4:8", batch=batch, **wanted) for batch in _BATCHES]
            times = [_micro(found[0], "dense"), _micro(found[0], "packed")]
            lines.append([f"{height} x {width}, {name}", *times, *map(_ratio, found)])
    return markdown_table(head, lines)


def _by_pattern(rows: Sequence[Row]) -> str:
    """Ratios at 4096 x 4096 for every pattern."""
    columns = [
        (dtype, batch, way)
        for dtype in ("float32", "bfloat16")
        for batch in (1, 8)
        for way in ("forward", "transposed")
    ]
    names = {"forward": "x W^T", "transposed": "y W"}
    head = ["pattern", *(f"{dtype}, {batch}, {names[way]}" for dtype, batch, way in columns)]
    patterns = dict.fromkeys(str(row["pattern"]) for row in rows if row["way"] == "forward")
    lines = [
        [pattern]
        + [
            _ratio(_find(rows, rows=4096, columns=4096, pattern=pattern, dtype=dtype, batch=batch, way=way))
            for dtype, batch, way in columns
        ]
        for pattern in sorted(patterns, key=lambda text: (_density(text), len(text), text))
    ]
    return markdown_table(head, lines)


def _density(pattern: str) -> float:
    """Share of kept weights."""
    keep, block = map(int, pattern.split(":"))
    return keep / block


def _repacked(rows: Sequence[Row]) -> str:
    """The product y W from the storage of W, and from W^T packed on its own."""
    head = ["batch", "from W's storage, us", "from W^T packed on its own, us"]
    lines = []
    for row in rows:
        if row["way"] == "repacked":
            same = _find(
                rows,
                way="transposed",
                rows=4096,
                columns=4096,
                pattern="4:8",
                dtype="float32",
                batch=row["batch"],
            )
            lines.append([str(row["batch"]), _micro(same, "packed"), _micro(row, "packed")])
    return markdown_table(head, lines)


def _gradient(rows: Sequence[Row]) -> str:
    head = ["tokens", "dense product (all entries), us", "packed us", "ratio"]
    lines = [
        [str(row["batch"]), _micro(row, "dense"), _micro(row, "packed"), _ratio(row)]
        for row in rows
        if row["way"] == "gradient"
    ]
    return markdown_table(head, lines)


def _conv(rows: Sequence[Row]) -> str:
    head = ["channels, kernel, image", "dense us", "packed us", "ratio"]
    lines = [
        [
            f"{row['columns']} to {row['rows']}, {row['kernel']} x {row['kernel']}, {row['batch']} x {row['batch']}",
            _micro(row, "dense"),
            _micro(row, "packed"),
            _ratio(row),
        ]
        for row in rows
        if row["way"] == "conv"
    ]
    return markdown_table(head, lines)
