"""Rank correlations of the kernel benchmark's measures with the accuracy after training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bisparse.bench.adaptive_cases import CHOICES, DATA, PATTERNS, REGIMES
from bisparse.bench.ledger import Row
from bisparse.bench.spearman import spearman

__all__ = ["MEASURES", "Correlation", "correlations", "grouped", "mean_rows", "number"]

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
            accuracies = [number(row, "accuracy") for row in own]
            mean: Row = {
                "data": data,
                "regime": regime,
                "pattern": pattern,
                "choice": choice,
                "seeds": len(own),
            }
            mean |= {
                name: sum(number(row, name) for row in own) / len(own) for name in (*MEASURES, "accuracy")
            }
            mean["spread"] = float(np.std(accuracies, ddof=1)) if len(own) > 1 else math.nan
            found.append(mean)
    return found


def number(row: Row, name: str) -> float:
    """A column of a row; NaN where it holds none."""
    value = row[name]
    return float(value) if isinstance(value, (int, float)) else math.nan


def grouped(rows: Sequence[Row], *, choice: str | None = None, filters: bool = True) -> list[list[Row]]:
    """Mean rows per data set and regime: one column of the tables each; those with more than two masks.

    Args:
        rows: of the ledger.
        choice: only masks chosen that way: what is left varies in the pattern alone.
        filters: whether masks of whole filters count too; they are so much worse that they hide the rest.
    """
    found = [mean_rows(rows, data, regime) for data in DATA for regime in REGIMES]
    return [
        [row for row in group if choice in (None, row["choice"]) and (filters or row["pattern"] != "filters")]
        for group in found
        if len(group) > 2
    ]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of one measure.

    Attributes:
        values: one per group; NaN where the measure does not vary.
    """

    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """Those that are defined."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Of those that are defined; NaN where none is."""
        return sum(self.known) / len(self.known) if self.known else math.nan


def correlations(groups: Sequence[Sequence[Row]], name: str) -> Correlation:
    """Of a measure with the accuracy, in every group."""
    return Correlation(
        tuple(spearman([number(r, name) for r in g], [number(r, "accuracy") for r in g]) for g in groups)
    )
