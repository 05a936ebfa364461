"""Tables of the inference benchmark, and who wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bisparse.bench.documents import markdown_table
from bisparse.bench.inference import VARIANTS
from bisparse.bench.ledger import Row
from bisparse.report import format_bytes, plain_number

__all__ = ["inference_tables"]


def _number(row: Row | None, column: str) -> float | None:
    value = None if row is None else row[column]
    return float(value) if isinstance(value, (int, float)) else None


def inference_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Text by marker name: one table for each model, and the machine."""
    tables = {
        f"inference_{name}": _table([row for row in rows if row["model"] == name])
        for name in ("wide", "tiny")
    }
    machines = sorted({f"{row['machine']}, {row['threads']} threads" for row in rows})
    return tables | {"inference_machine": "\n".join(machines) + "\n"}


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not measured yet.\n"
    batches = sorted({int(_number(row, "batch") or 0) for row in rows})
    found = {(str(row["variant"]), int(_number(row, "batch") or 0)): row for row in rows}
    losses = any(row["loss"] is not None for row in rows)
    head = [
        "layers",
        *(f"tokens/s, batch {batch}" for batch in batches),
        "layers in memory",
        "resident",
        "file",
    ]
    known = [variant for variant in VARIANTS if rows and (variant, batches[0]) in found]
    lines = [_line(variant, batches, found, losses) for variant in known]
    return markdown_table([*head, "loss per token"] if losses else head, lines) + _winners(batches, found)


def _line(
    variant: str, batches: Sequence[int], found: Mapping[tuple[str, int], Row], losses: bool
) -> list[str]:
    base = "dense bfloat16" if variant.endswith("bfloat16") else "dense float32"
    cells = [variant]
    for batch in batches:
        speed, dense = (_number(found.get((name, batch)), "tokens_per_second") for name in (variant, base))
        ratio = f" ({speed / dense:.2f}x)" if speed and dense and variant != base else ""
        cells.append("" if speed is None else plain_number(speed) + ratio)
    row = found[variant, batches[0]]
    for column in ("layer_bytes", "resident_bytes", "file_bytes"):
        size, dense = _number(row, column), _number(found.get((base, batches[0])), column)
        ratio = f" ({size / dense:.2f})" if size and dense and variant != base else ""
        cells.append("-" if size is None else format_bytes(size) + ratio)
    loss = _number(row, "loss")
    return [*cells, "" if loss is None else f"{loss:.3f}"] if losses else cells


def _winners(batches: Sequence[int], found: Mapping[tuple[str, int], Row]) -> str:
    """One sentence per batch: the fastest."""
    sentences = []
    for batch in batches:
        rows = {name: row for (name, size), row in found.items() if size == batch}
        speeds = {name: _number(row, "tokens_per_second") or 0.0 for name, row in rows.items()}
        best = sorted(speeds, key=lambda name: -speeds[name])[:2]
        if len(best) == 2:
            ratio = speeds[best[0]] / speeds[best[1]]
            sentences.append(f"Batch {batch}: {best[0]} is fastest, {ratio:.2f}x of {best[1]}.")
    return "\n" + " ".join(sentences) + "\n" if sentences else ""
