"""Differences of paired runs, with the interval that they leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

__all__ = ["Interval", "paired_interval"]

# Student's t, 97.5%, for 1, 2, ... 30 degrees of freedom; beyond, the normal distribution is near enough.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

_FEWEST = 3  # Student's interval of two differences is 12.7 standard errors wide to either side


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its two-sided 95% interval, mean +- half.

    Attributes:
        mean: of the differences.
        half: half the width; infinite for a single pair.
        count: of pairs.
    """

    mean: float
    half: float
    count: int

    @property
    def upper(self) -> float:
        """Its upper end."""
        return self.mean + self.half

    def told(self, digits: int = 2) -> str:
        """The mean, with its interval where there are pairs enough for one that says something."""
        return f"{self.mean:+.{digits}f}" + (f" ± {self.half:.{digits}f}" if self.count >= _FEWEST else "")

    def __str__(self) -> str:
        return self.told()


def paired_interval(differences: Sequence[float]) -> Interval:
    """Student's interval of the mean difference.

    Raises:
        ValueError: no pair.
    """
    count = len(differences)
    if not count:
        raise ValueError("no pair of runs: measure both with one seed at least")
    if count == 1:
        return Interval(differences[0], math.inf, 1)
    quantile = _T[min(count - 1, len(_T)) - 1]
    return Interval(fmean(differences), quantile * stdev(differences) / math.sqrt(count), count)
