"""The mask benchmark's rows as markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bisparse.bench import Row
from bisparse.bench.documents import markdown_table
from bisparse.bench.mask_targets import judge
from bisparse.report import plain_number

__all__ = ["mask_tables"]

MAIN = ("2:4t", "4:8t", "8:16t", "16:32t")
ALL = ("2:4t", "1:4t", "4:8t", "2:8t", "8:16t", "16:32t")
BASE: Row = {
    "method": "exact", "data": "gaussian", "dtype": "float32", "start": "cold", "threads": 2, "size": 4096
}  # fmt: skip


def mask_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Every table by its name in the documents; rows of one machine."""
    return {name: table(rows) for name, table in TABLES.items()}


def _headline(rows: Sequence[Row]) -> str:
    """The README's table: one line per pattern."""
    lines = []
    for pattern in MAIN:
        row = _find(rows, pattern=pattern)
        if row is not None:
            small, entropic = (
                _find(rows, pattern=pattern, size=1024),
                _find(rows, pattern=pattern, size=1024, method="entropic"),
            )
            faster = _over(entropic, small, "seconds")
            lines.append(
                [
                    pattern,
                    _ms(row),
                    _plain(row, "ns_per_weight"),
                    _plain(row, "passes"),
                    _gap(row),
                    f"{faster}x",
                ]
            )
    return _machine(rows) + markdown_table(
        ["pattern", "ms", "ns per weight", "memory passes", "proven gap", "faster than entropic"], lines
    )


def _targets(rows: Sequence[Row]) -> str:
    """Every target, with what was measured and how it came out."""
    lines = [
        [
            v.what,
            f"{v.target:g}",
            f"{v.stretch:g}",
            plain_number(v.measured) if v.measured is not None else "",
            v.outcome,
        ]
        for v in judge(rows)
    ]
    return _machine(rows) + markdown_table(["what", "target", "stretch", "measured", "outcome"], lines)


def _kinds(rows: Sequence[Row]) -> str:
    """Milliseconds at 4096 x 4096 for every kind of scores."""
    variants: tuple[tuple[str, Row], ...] = (
        ("Gaussian float32", {}),
        ("heavy-tailed", {"data": "student"}),
        ("80% zeros", {"data": "zeros80"}),
        ("95% zeros", {"data": "zeros95"}),
        ("real weights", {"data": "real"}),
        ("bfloat16", {"dtype": "bfloat16"}),
        ("float16", {"dtype": "float16"}),
        ("float64", {"dtype": "float64"}),
        ("warm, change 1e-3", {"start": "warm 0.001"}),
        ("warm, change 1e-2", {"start": "warm 0.01"}),
        ("1 thread", {"threads": 1}),
    )
    lines = [[name, *(_ms(_find(rows, pattern=p, **change)) for p in ALL)] for name, change in variants]
    return markdown_table(["scores", *ALL], lines)


def _sizes(rows: Sequence[Row]) -> str:
    """Nanoseconds per weight over the size."""
    sizes = (512, 1024, 2048, 4096, 8192)
    lines = [
        [f"{p}, {t} thread{'s' * (t > 1)}"]
        + [_plain(_find(rows, pattern=p, size=size, threads=t), "ns_per_weight") for size in sizes]
        for t in (2, 1)
        for p in (*ALL, "2:4", "4:8")
    ]
    return markdown_table(["pattern", *(str(size) for size in sizes)], lines)


def _methods(rows: Sequence[Row]) -> str:
    """Every method at 1024 x 1024: time, factor over exact, proven gap."""
    lines = []
    for pattern in MAIN:
        exact = _find(rows, pattern=pattern, size=1024)
        for method in ("exact", "greedy", "two_approx", "entropic", "flow", "product90"):
            row = _find(rows, pattern=pattern, size=1024, method=method)
            if row is not None:
                mark = "*" if row["extrapolated_from"] else ""
                lines.append([pattern, method, _ms(row) + mark, _over(row, exact, "seconds"), _gap(row)])
    return markdown_table(["pattern", "method", "ms", "time / exact", "proven gap"], lines) + (
        "\n\\* scaled up from a 256 x 256 corner.\n"
    )


def _plain_masks(rows: Sequence[Row]) -> str:
    """Row-wise, unstructured and 2:4t masks against what torch alone can do."""
    lines = []
    for pattern, method in (
        ("2:4", "topk"),
        ("4:8", "topk"),
        ("unstructured:0.5", "topk"),
        ("2:4t", "product90"),
    ):
        for threads in (2, 1):
            ours = _find(rows, pattern=pattern, threads=threads)
            theirs = _find(rows, pattern=pattern, threads=threads, method=method)
            lines.append(
                [pattern, str(threads), _ms(ours), method, _ms(theirs), _over(theirs, ours, "seconds")]
            )
    return markdown_table(["pattern", "threads", "exact, ms", "against", "ms", "faster by"], lines)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "masks_headline": _headline,
    "masks_targets": _targets,
    "masks_kinds": _kinds,
    "masks_sizes": _sizes,
    "masks_methods": _methods,
    "masks_plain": _plain_masks,
}


def _find(rows: Sequence[Row], **change: str | int | float | bool | None) -> Row | None:
    """The row that differs from the base case in the named columns."""
    wanted = {**BASE, **change}
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _machine(rows: Sequence[Row]) -> str:
    """Where the numbers come from."""
    return f"{rows[0]['machine']}:\n\n" if rows else ""


def _ms(row: Row | None) -> str:
    return "" if row is None else plain_number(1e3 * float(row["seconds"] or 0.0))


def _plain(row: Row | None, column: str) -> str:
    return "" if row is None else plain_number(float(row[column] or 0.0))


def _gap(row: Row) -> str:
    gap = float(row["gap"] or 0.0)
    return "0" if gap <= 1e-7 else f"{gap:.2%}" if gap >= 1e-4 else f"{gap:.0e}"


def _over(above: Row | None, below: Row | None, column: str) -> str:
    if above is None or below is None:
        return ""
    return plain_number(float(above[column] or 0.0) / float(below[column] or 1.0))
