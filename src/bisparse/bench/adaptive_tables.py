"""Tables and rank correlations of the kernel benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bisparse.bench.adaptive_cases import CHOICES, DATA, PATTERNS, REGIMES
from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row

__all__ = ["MEASURES", "adaptive_tables", "correlation_table", "mean_rows", "spearman"]

MEASURES = {
    "diversity_paper": "mask diversity, paper's formula",
    "diversity_exact": "mask diversity, exact",
    "kept_magnitude": "kept magnitude",
    "alignment": "alignment of K_M with the labels",
    "y_inside": "share of the labels in range K_M",
    "y_fitted": "share of the labels fitted by ridge K_M",
    "rank": "rank K_M",
    "effective_dimension": "effective dimension of K_M",
    "kept_trace": "trace of K_M / trace of K",
}


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Ranks from 1; ties share their mean."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: npt.NDArray[np.float64] = (ends - (counts - 1) / 2.0)[inverse]
    return means


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def mean_rows(rows: Sequence[Row], data: str, regime: str) -> list[Row]:
    """One row per pattern and choice: means over seeds, with ``seeds`` and the accuracy's ``spread``."""
    found: list[Row] = []
    for pattern in PATTERNS:
        for choice in CHOICES:
            own = [
                row
                for row in rows
                if (row["data"], row["regime"], row["pattern"], row["choice"])
                == (data, regime, pattern, choice)
            ]
            if not own:
                continue
            accuracies = [_number(row, "accuracy") for row in own]
            mean: Row = {
                "data": data,
                "regime": regime,
                "pattern": pattern,
                "choice": choice,
                "seeds": len(own),
            }
            mean |= {
                name: sum(_number(row, name) for row in own) / len(own) for name in (*MEASURES, "accuracy")
            }
            mean["spread"] = float(np.std(accuracies, ddof=1)) if len(own) > 1 else math.nan
            found.append(mean)
    return found


def _number(row: Row, name: str) -> float:
    value = row[name]
    return float(value) if isinstance(value, (int, float)) else math.nan


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    found = [mean_rows(rows, data, regime) for data in DATA for regime in REGIMES]
    return [group for group in found if len(group) > 2]


def correlation_table(rows: Sequence[Row], *, choice: str | None = None, filters: bool = True) -> str:
    """Rank correlation of every measure with the accuracy after training, per data set and regime, and the mean.

    Args:
        rows: of the ledger.
        choice: only masks chosen that way: what is left varies in the pattern alone.
        filters: whether masks of whole filters count too; they are so much worse that they hide the rest.
    """
    groups = [
        [row for row in group if choice in (None, row["choice"]) and (filters or row["pattern"] != "filters")]
        for group in _groups(rows)
    ]
    head = ["measure", *(f"{group[0]['data']}, {group[0]['regime']}" for group in groups), "mean"]
    lines, means = [], []
    for name, title in MEASURES.items():
        values = [
            spearman([_number(r, name) for r in g], [_number(r, "accuracy") for r in g]) for g in groups
        ]
        known = [value for value in values if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        means.append(mean)
        lines.append([title, *map(_signed, values), _signed(mean)])
    best = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
    for line, mean in zip(lines, means, strict=True):
        if mean == best:
            line[-1] = f"**{line[-1]}**"
    return markdown_table(head, lines)


def _correlations(groups: Sequence[Sequence[Row]], name: str) -> tuple[list[float], float]:
    """Of a measure with the accuracy in every group, and their mean where they are defined."""
    values = [spearman([_number(r, name) for r in g], [_number(r, "accuracy") for r in g]) for g in groups]
    known = [value for value in values if not math.isnan(value)]
    return values, sum(known) / len(known) if known else math.nan


def _sentence(rows: Sequence[Row]) -> str:
    """What the first table says, from the best measure down."""
    means = {title: _correlations(_groups(rows), name)[1] for name, title in MEASURES.items()}
    order = sorted((title for title in means if not math.isnan(means[title])), key=lambda t: -means[t])
    return (
        "Mean rank correlation, best first: " + "; ".join(f"{t} {_signed(means[t])}" for t in order) + ".\n"
    )


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"


def _accuracy_table(rows: Sequence[Row]) -> str:
    """Accuracy after training by pattern and choice."""
    groups = _groups(rows)
    head = ["masks", *(f"{group[0]['data']}, {group[0]['regime']}" for group in groups)]
    lines = []
    for pattern in PATTERNS:
        for choice in CHOICES:
            cells = [
                next((_percent(r) for r in g if (r["pattern"], r["choice"]) == (pattern, choice)), "")
                for g in groups
            ]
            lines.append([f"{pattern}, {choice}", *cells])
    return markdown_table(head, lines)


def _percent(row: Row) -> str:
    spread = _number(row, "spread")
    text = f"{100 * _number(row, 'accuracy'):.2f}"
    return text if math.isnan(spread) else f"{text} ± {100 * spread:.2f}"


def _pair_table(rows: Sequence[Row]) -> str:
    head = [
        "digits",
        "step",
        "alignment",
        "CKA with start",
        "slope",
        "network",
        "its kernel now",
        "its kernel at start",
    ]
    lines = []
    for row in sorted(rows, key=lambda row: (str(row["pair"]), _number(row, "step"))):
        errors = [f"{100 * _number(row, f'error_{name}'):.1f}" for name in ("network", "adaptive", "initial")]
        numbers = [f"{_number(row, name):.3f}" for name in ("alignment", "cka_start")]
        lines.append([str(row["pair"]), str(row["step"]), *numbers, f"{_number(row, 'decay'):.2f}", *errors])
    return markdown_table(head, lines)


def _seeds(rows: Sequence[Row]) -> str:
    counts = [int(_number(row, "seeds")) for group in _groups(rows) for row in group]
    if not counts:
        return "Nothing is measured yet.\n"
    least, most = min(counts), max(counts)
    return f"Seeds per number: {least if least == most else f'{least} or {most}'}; {len(rows)} trained networks.\n"


def adaptive_tables(rows: Sequence[Row], pairs: Sequence[Row]) -> dict[str, str]:
    """Text by marker name."""
    machines = sorted({str(row["machine"]) for row in (*rows, *pairs)})
    return {
        "kernel_correlations": correlation_table(rows),
        "kernel_correlations_weights": correlation_table(rows, filters=False),
        "kernel_correlations_random": correlation_table(rows, choice="random"),
        "kernel_accuracy": _accuracy_table(rows),
        "kernel_pairs": _pair_table(pairs),
        "kernel_machine": "\n".join(machines) + "\n",
        "kernel_seeds": _seeds(rows),
        "kernel_sentence": _sentence(rows),
    }
