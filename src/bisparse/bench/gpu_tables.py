"""Tables of what was measured on a GPU, beside the targets of the design."""

from __future__ import annotations

from collections.abc import Sequence

from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row
from bisparse.report import plain_number

__all__ = ["TARGETS", "gpu_tables"]

TARGETS = {
    "2:4t": 0.5e-3,
    "4:8t": 1e-3,
    "8:16t": 4e-3,
    "16:32t": 12e-3,
}  # gaussian, seconds, 8192 x 8192, H200
_NOTHING = "Not measured yet: no GPU has been at hand.\n"


def gpu_tables(rows: Sequence[Row]) -> dict[str, str]:
    """``gpu_masks`` and ``gpu_linears``, one block per machine; a sentence where there are no rows."""
    return {"gpu_masks": _blocks(rows, "mask", _masks), "gpu_linears": _blocks(rows, "linear", _linears)}


def _blocks(rows: Sequence[Row], what: str, table: object) -> str:
    assert callable(table)
    machines = dict.fromkeys(str(row["machine"]) for row in rows if row["what"] == what)
    blocks = []
    for machine in machines:
        own = [row for row in rows if row["what"] == what and row["machine"] == machine]
        blocks.append(f"{machine}:\n\n{table(own)}")
    return "\n".join(blocks) or _NOTHING


def _masks(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(str(row["variant"]) for row in rows))
    lines = []
    for pattern, target in TARGETS.items():
        found = {str(row["variant"]): row for row in rows if row["case"] == pattern}
        if found:
            verdict = _verdict(found["gaussian"], target) if "gaussian" in found else "not measured"
            lines.append(
                [pattern, *(_milliseconds(found.get(k)) for k in kinds), f"{1e3 * target:g}", verdict]
            )
    head = ["pattern, 8192 x 8192", *(f"{kind}, ms" for kind in kinds), "target, ms", "outcome"]
    return markdown_table(head, lines)


def _verdict(row: Row, target: float) -> str:
    ratio = float(row["seconds"] or 0.0) / target
    if ratio <= 0.5:
        return "stretch"
    return "met" if ratio <= 1.0 else f"missed by {ratio:.2f}x"


def _linears(rows: Sequence[Row]) -> str:
    lines = []
    for case in dict.fromkeys(str(row["case"]) for row in rows):
        found = {str(row["variant"]): row for row in rows if row["case"] == case}
        gains = [_gain(found.get(name)) for name in ("cusparselt", "cutlass", "compress")]
        lines.append([case, _milliseconds(found.get("dense")), *gains])
    head = [
        "layer: tokens x columns to rows", "dense, ms", "cuSPARSELt by tile", "CUTLASS", "cuSPARSELt by compress",
    ]  # fmt: skip
    return markdown_table(head, lines)


def _milliseconds(row: Row | None) -> str:
    seconds = None if row is None else row["seconds"]
    return "-" if seconds is None else plain_number(1e3 * float(seconds))


def _gain(row: Row | None) -> str:
    if row is None or row["gain"] is None:
        return "-"
    wrong = float(row["difference"] or 0.0) > 3e-2
    return f"{float(row['gain']):.2f}x" + (" (wrong result)" if wrong else "")
