"""The targets of the mask solver on a CPU, and whether the measured rows meet them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bisparse.bench.ledger import Row

__all__ = ["Verdict", "judge"]

SIZE, THREADS = 4096, 2
PASSES = {"2:4t": 4.5, "4:8t": 7.5, "8:16t": 30.0, "16:32t": 60.0}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and what was measured.

    Attributes:
        what: in words.
        target: to reach; ``stretch`` is the harder one.
        stretch: see ``target``.
        measured: ``None`` where the rows do not contain it.
        smaller_is_better: which way the target points.
    """

    what: str
    target: float
    stretch: float
    measured: float | None
    smaller_is_better: bool = True

    @property
    def outcome(self) -> str:
        """``stretch``, ``met``, ``missed by <factor>`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        if self._reaches(self.stretch):
            return "stretch"
        if self._reaches(self.target):
            return "met"
        excess = self.measured / self.target if self.smaller_is_better else self.target / self.measured
        return f"missed by {excess:.2f}x"

    def _reaches(self, goal: float) -> bool:
        assert self.measured is not None
        return self.measured <= goal if self.smaller_is_better else self.measured >= goal


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Every CPU target that concerns masks, in the order of the design; rows of one machine only."""
    exact = {"method": "exact", "data": "gaussian", "dtype": "float32", "start": "cold", "threads": THREADS}
    verdicts: list[Verdict] = []
    for pattern, passes in PASSES.items():
        base = {**exact, "pattern": pattern, "size": SIZE}
        verdicts.append(
            Verdict(f"{pattern} exact, in memory passes", passes, passes / 2, _value(rows, base, "passes"))
        )
        verdicts.append(
            Verdict(
                f"{pattern} 80% zeros / Gaussian", 4.0, 2.0, _ratio(rows, {**base, "data": "zeros80"}, base)
            )
        )
        verdicts.append(
            Verdict(
                f"{pattern} bfloat16 / float32", 1.2, 0.8, _ratio(rows, {**base, "dtype": "bfloat16"}, base)
            )
        )
        for change in ("0.001", "0.01"):
            if pattern != "2:4t":
                warm = {**base, "start": f"warm {change}"}
                verdicts.append(
                    Verdict(f"{pattern} warm {change} / cold", 0.6, 0.3, _ratio(rows, warm, base))
                )
    for pattern in PASSES:
        small = {**exact, "pattern": pattern, "size": 1024}
        faster = _ratio(rows, {**small, "method": "entropic"}, small)
        verdicts.append(
            Verdict(f"{pattern} exact faster than entropic", 50.0, 200.0, faster, smaller_is_better=False)
        )
    return verdicts


def _value(rows: Sequence[Row], where: Mapping[str, object], column: str) -> float | None:
    """A column of the row that matches, if there is one."""
    for row in rows:
        if all(row[name] == value for name, value in where.items()):
            value = row[column]
            return float(value) if value is not None else None
    return None


def _ratio(rows: Sequence[Row], above: Mapping[str, object], below: Mapping[str, object]) -> float | None:
    """Seconds of one row over seconds of another."""
    numerator, denominator = _value(rows, above, "seconds"), _value(rows, below, "seconds")
    return None if numerator is None or not denominator else numerator / denominator
