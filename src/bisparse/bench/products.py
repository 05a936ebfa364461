"""Linear layers, dense against packed: where the machine is faster with zeros left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bisparse.acceleration.timing import Cold, last_level_cache, time_layer
from bisparse.bench.ledger import Ledger, Row
from bisparse.bench.product_cases import KEY, ProductCase
from bisparse.bench.product_words import in_plain_words
from bisparse.machine import busy_note, describe_machine
from bisparse.masks.solve import solve_mask
from bisparse.nn import PackedLinear
from bisparse.report import Column, Table, TableReport, plain_number
from bisparse.timing import torch_threads

__all__ = ["ProductReport", "masked_linear", "open_ledger", "run_products"]

_COLUMNS = (
    Column("shape", "outputs x inputs", "shape"),
    Column("pattern", "pattern"),
    Column("dtype", "type"),
    Column("tokens", "tokens", "count"),
    Column("dense_us", "dense us", "number"),
    Column("sparse_us", "sparse us", "number"),
    Column("speedup", "speed-up", "number"),
    Column("share", "bytes of dense", "share", rank=1),
    Column("difference", "differs by", "number", rank=2),
)


@dataclass(frozen=True, slots=True)
class ProductReport(TableReport):
    """Rows of the benchmark, and what follows from them in plain words."""

    mode: str
    rows: tuple[Row, ...]
    words: tuple[str, ...]

    def to_table(self) -> Table:
        """One line for each case; the last line says it in words."""
        rows = [{**row, "shape": (row["rows"], row["columns"]), **_plain(row)} for row in self.rows]
        first = self.rows[0] if self.rows else {}
        where = "from memory" if first.get("cold") else "from the caches"
        passes = "forward" if self.mode == "inference" else "forward and backward"
        title = f"{first.get('machine')}, {first.get('threads')} threads; {passes}, weights {where}, medians"
        return Table(title, _COLUMNS, rows, self.words)


def _plain(row: Row) -> dict[str, str]:
    """Times and ratios without exponents."""
    return {key: plain_number(float(row[key] or 0.0)) for key in ("dense_us", "sparse_us", "speedup")}


def open_ledger(path: Path | None) -> Ledger:
    """Rows measured before, or none."""
    return Ledger(path, KEY)


def masked_linear(rows: int, columns: int, pattern: str, dtype: torch.dtype) -> nn.Linear:
    """A random layer whose weight obeys a pattern, pruned by magnitude."""
    layer = nn.Linear(columns, rows, bias=False)
    with torch.no_grad():
        mask = solve_mask(layer.weight, pattern, magnitude=True).mask
        layer.weight.masked_fill_(~mask, 0.0)
    return layer.to(dtype)


def run_products(
    cases: Iterable[ProductCase],
    ledger: Ledger,
    *,
    repeats: int = 11,
    seconds: float = 3.0,
    progress: Callable[[str], None] | None = None,
) -> ProductReport:
    """Measure every case that the ledger lacks.

    Args:
        cases: what to measure.
        ledger: keeps the rows.
        repeats: samples of each.
        seconds: time limit for each case.
        progress: told what is measured next.

    Returns:
        The rows of these cases.
    """
    wanted = list(cases)
    built: tuple[tuple[object, ...], nn.Linear, PackedLinear] | None = None
    for case in wanted:
        row = case.row()
        if row in ledger:
            continue
        if progress is not None:
            progress(f"{case.rows}x{case.columns} {case.pattern} {case.dtype}, {case.tokens} tokens")
        key = (case.rows, case.columns, case.pattern, case.dtype)
        if built is None or built[0] != key:
            torch.manual_seed(0)
            dense = masked_linear(case.rows, case.columns, case.pattern, case.torch_dtype)
            built = (key, dense, PackedLinear.from_linear(dense, case.pattern))
        with torch_threads(case.threads):
            ledger.append(row | _measure(case, built[1], built[2], repeats, seconds))
    rows = ledger.find(case.row() for case in wanted)
    words = [*filter(None, [busy_note()]), *in_plain_words(rows)]
    return ProductReport(wanted[0].mode if wanted else "inference", tuple(rows), tuple(words))


def _measure(case: ProductCase, dense: nn.Linear, packed: PackedLinear, repeats: int, seconds: float) -> Row:
    x = torch.randn(case.tokens, case.columns).to(case.torch_dtype)
    cold = Cold(2 * last_level_cache()) if case.cold else None
    times = time_layer(
        dense, {"packed": packed}, x, mode=case.mode, cold=cold, repeats=repeats, seconds=seconds
    )
    if not times.agrees("packed", case.torch_dtype):
        raise RuntimeError(
            f"{case}: outputs differ by {times.differences['packed']:.1e}; this is a fault of bisparse"
        )
    dense_us, sparse_us = 1e6 * times.seconds["dense"], 1e6 * times.seconds["packed"]
    return {
        "dense_us": round(dense_us, 1),
        "sparse_us": round(sparse_us, 1),
        "speedup": round(dense_us / sparse_us, 3),
        "share": packed.packed.nbytes / dense.weight.nbytes,
        "difference": times.differences["packed"],
        "machine": describe_machine(),
    }
