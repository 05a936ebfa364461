"""What puts patterns in the order of the accuracy that they reach?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from bisparse.bench.documents import markdown_table
from bisparse.bench.ledger import Row
from bisparse.bench.spearman import spearman
from bisparse.bench.train_cases import STUDIES, Case
from bisparse.bench.train_rows import CaseRows, points

__all__ = ["ordering_table"]

# What may order patterns by accuracy: column of the ledger, title.
_ORDERS = {
    "diversity": "log10 masks",
    "diversity_paper": "paper's formula",
    "kept_magnitude": "magnitude kept",
    "flip_rate": "flips per refresh",
}


def ordering_table(rows: CaseRows) -> str:
    """Rank correlation of what a pattern allows, or what its masks did, with the accuracy that it reached."""
    lines = []
    for study in ("mnist", "fashion-mnist"):
        for how, chosen in _alike(study).items():
            found = [rows.of(case) for case in chosen]
            if not all(found):
                continue
            cells = [_correlation(found, name) for name in _ORDERS]
            lines.append([STUDIES[study][0].task, how, str(len(found)), *cells])
    head = ["network", "runs", "patterns", *_ORDERS.values()]
    return markdown_table(head, lines) if lines else "Not measured yet.\n"


def _alike(study: str) -> dict[str, list[Case]]:
    """Runs that differ in nothing but the pattern."""
    exact = [case for case in STUDIES[study] if case.method == "exact" and case.rule != "ste"]
    kinds = {"dynamic": "SR-STE from scratch", "static": "fixed masks of the dense network"}
    found = {name: [case for case in exact if case.kind == kind] for kind, name in kinds.items()}
    both_ways = {
        f"{name}, transposable": [case for case in chosen if case.pattern.endswith("t")]
        for name, chosen in found.items()
    }
    return found | both_ways


def _correlation(found: Sequence[Sequence[Row]], name: str) -> str:
    """Over the patterns; empty where the measure is not defined for all of them, or is the same for all."""
    if any(row.get(name) is None for rows in found for row in rows):
        return ""
    measure = [fmean(float(row[name] or 0.0) for row in rows) for rows in found]
    value = spearman(measure, [fmean(map(points, rows)) for rows in found])
    return "" if math.isnan(value) else f"{value:+.2f}"
