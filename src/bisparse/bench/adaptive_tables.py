"""Tables of the kernel benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bisparse.bench.adaptive_cases import CHOICES, PATTERNS
from bisparse.bench.adaptive_correlations import MEASURES, correlations, grouped, number
from bisparse.bench.adaptive_words import adaptive_words
from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row

__all__ = ["adaptive_tables", "correlation_table"]


def correlation_table(rows: Sequence[Row], *, choice: str | None = None, filters: bool = True) -> str:
    """Rank correlation of every measure with the accuracy after training, per data set and regime, and the mean.

    Args:
        rows: of the ledger.
        choice: see :func:`bisparse.bench.adaptive_correlations.grouped`.
        filters: likewise.
    """
    groups = grouped(rows, choice=choice, filters=filters)
    head = ["measure", *(f"{group[0]['data']}, {group[0]['regime']}" for group in groups), "mean"]
    found = {title: correlations(groups, name) for name, title in MEASURES.items()}
    best = max((one.mean for one in found.values() if one.known), default=math.nan)
    lines = []
    for title, one in found.items():
        mean = _signed(one.mean)
        lines.append([title, *map(_signed, one.values), f"**{mean}**" if one.mean == best else mean])
    return markdown_table(head, lines)


def _sentence(rows: Sequence[Row]) -> str:
    """What the first table says, from the best measure down."""
    means = {title: correlations(grouped(rows), name).mean for name, title in MEASURES.items()}
    order = sorted((title for title in means if not math.isnan(means[title])), key=lambda t: -means[t])
    return (
        "Mean rank correlation, best first: " + "; ".join(f"{t} {_signed(means[t])}" for t in order) + ".\n"
    )


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"


def _accuracy_table(rows: Sequence[Row]) -> str:
    """Accuracy after training by pattern and choice."""
    groups = grouped(rows)
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
    spread = number(row, "spread")
    text = f"{100 * number(row, 'accuracy'):.2f}"
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
    for row in sorted(rows, key=lambda row: (str(row["pair"]), number(row, "step"))):
        errors = [f"{100 * number(row, f'error_{name}'):.1f}" for name in ("network", "adaptive", "initial")]
        numbers = [f"{number(row, name):.3f}" for name in ("alignment", "cka_start")]
        lines.append([str(row["pair"]), str(row["step"]), *numbers, f"{number(row, 'decay'):.2f}", *errors])
    return markdown_table(head, lines)


def _seeds(rows: Sequence[Row]) -> str:
    counts = [int(number(row, "seeds")) for group in grouped(rows) for row in group]
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
        "kernel_words": adaptive_words(rows),
    }
