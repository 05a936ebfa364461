"""Rows of the training benchmark, found by case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from bisparse.bench.ledger import Row
from bisparse.bench.paired import Interval, paired_interval
from bisparse.bench.train_cases import Case

__all__ = ["CaseRows", "points"]

_SEEDS = 30


def points(row: Row) -> float:
    """Test accuracy in percent."""
    return 100.0 * float(row["test_accuracy"] or 0.0)


class CaseRows:
    """Rows by case."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {tuple(row[name] for name in Case.__dataclass_fields__): row for row in rows}

    def of(self, case: Case) -> list[Row]:
        """The rows of a case, all seeds."""
        keys = (tuple(replace(case, seed=seed).row().values()) for seed in range(_SEEDS))
        return [self._rows[key] for key in keys if key in self._rows]

    def pairs(self, case: Case, base: Case, measure: Callable[[Row], float]) -> Interval | None:
        """The differences case - base over the seeds that both have."""
        others = {row["seed"]: row for row in self.of(base)}
        pairs = [
            measure(row) - measure(others[row["seed"]]) for row in self.of(case) if row["seed"] in others
        ]
        return paired_interval(pairs) if pairs else None
