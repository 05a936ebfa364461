"""Tables of the compression benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from bisparse.bench.compress_cases import PATTERNS, RESNETS, Case
from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row

__all__ = ["compress_tables"]

_AUTO = ("alps", "auto")
_NAMES = {"auto": "alps + distill (default)", "long": "alps + long distill"}


def _value(rows: Sequence[Row], case: Case, column: str = "measure") -> float | None:
    wanted = case.row()
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            found = row.get(column)
            return float(found) if isinstance(found, (int, float)) else None
    return None


def _cell(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _headline(rows: Sequence[Row]) -> str:
    """The default recipe on both networks: drop from dense, target, time."""
    lines = []
    for model in RESNETS:
        dense = _value(rows, Case(model, "dense", reconstruct="dense"))
        for pattern, target in (("4:8t", 0.3), ("2:4t", 0.5)):
            values = [_value(rows, Case(model, pattern, seed=seed)) for seed in (0, 1, 2)]
            seen = [value for value in values if value is not None]
            if dense is None or not seen:
                continue
            drop = dense - seen[0]
            others = ", ".join(_cell(value) for value in seen[1:])
            seconds = _value(rows, Case(model, pattern), "cpu_seconds")
            verdict = "met" if round(drop, 2) <= target else f"missed by {drop - target:.2f}"
            lines.append(
                [
                    model,
                    pattern,
                    _cell(dense),
                    _cell(seen[0]),
                    others,
                    _cell(drop),
                    f"{target} {verdict}",
                    _cell(seconds, 0),
                ]
            )
    head = ["network", "pattern", "dense", "pruned", "other seeds", "drop", "target", "CPU seconds"]
    return markdown_table(head, lines)


def _grid(rows: Sequence[Row], model: str, digits: int) -> str:
    """One line per scores x reconstruction, one column per pattern; the best of each column in bold."""
    methods = dict.fromkeys(
        (str(row["scores"]), str(row["reconstruct"]))
        for row in rows
        if row["model"] == model
        and row["pattern"] in PATTERNS
        and not row["samples"]
        and not row["seed"]
        and row["reconstruct"] != "long"
    )
    columns = [[_value(rows, Case(model, pattern, *method)) for method in methods] for pattern in PATTERNS]
    choose = min if model == "llama" else max
    best = [choose((v for v in column if v is not None), default=None) for column in columns]
    lines = []
    for index, (scores, reconstruct) in enumerate(methods):
        name = _NAMES.get(reconstruct, reconstruct)
        cells = [_cell(column[index], digits) for column in columns]
        cells = [
            f"**{cell}**" if cell and column[index] == top else cell
            for cell, column, top in zip(cells, columns, best, strict=True)
        ]
        lines.append([name, "" if scores == "auto" else scores, *cells])
    dense = _value(rows, Case(model, "dense", reconstruct="dense"))
    return f"Dense: {_cell(dense, digits)}\n\n" + markdown_table(
        ["reconstruction", "scores", *PATTERNS], lines
    )


def _unstructured(rows: Sequence[Row], model: str, digits: int) -> str:
    lines = []
    for sparsity in (0.5, 0.6, 0.7, 0.8, 0.9):
        cells = [
            _cell(_value(rows, Case(model, "unstructured", reconstruct="none", sparsity=sparsity)), digits)
        ]
        for pattern in ("fit:8", "fit:8t"):
            blind = Case(model, pattern, reconstruct="none", sparsity=sparsity)
            repaired = _value(rows, blind, "repaired")
            cells += [
                _cell(None if repaired is None else 100 * repaired),
                _cell(_value(rows, blind), digits),
                _cell(_value(rows, Case(model, pattern, sparsity=sparsity)), digits),
            ]
        lines.append([f"{sparsity:.0%}", *cells])
    head = [
        "zeros",
        "unstructured",
        "N:8 repaired %",
        "masked",
        "fitted",
        "N:8t repaired %",
        "masked",
        "fitted",
    ]
    return markdown_table(head, lines)


def _samples(
    rows: Sequence[Row],
    model: str,
    counts: Sequence[int],
    usual: int,
    digits: int,
    recipes: Sequence[str] = _AUTO,
) -> str:
    """One line per number of samples; 0 stands for the usual number of the model's protocol."""
    lines = []
    for count in counts:
        cases = (Case(model, "4:8t", reconstruct=r, samples=0 if count == usual else count) for r in recipes)
        lines.append([str(count), *(_cell(_value(rows, case), digits) for case in cases)])
    return markdown_table(["samples", *(_NAMES.get(r, r) for r in recipes)], lines)


def compress_tables(rows: Sequence[Row]) -> dict[str, str]:
    """Text by marker name."""
    machines = sorted({str(row["machine"]) for row in rows})
    return {
        "compress_headline": _headline(rows),
        "compress_resnet20": _grid(rows, "resnet20", 2),
        "compress_resnet32": _grid(rows, "resnet32", 2),
        "compress_llama": _grid(rows, "llama", 3),
        "compress_fit_resnet20": _unstructured(rows, "resnet20", 2),
        "compress_fit_llama": _unstructured(rows, "llama", 3),
        "compress_samples": _samples(rows, "resnet20", (64, 256, 1024, 2048), 1024, 2),
        "compress_samples_llama": _samples(rows, "llama", (8, 32, 74, 512, 2048), 74, 3, (*_AUTO, "long")),
        "compress_machine": "\n".join(machines) + "\n",
    }
