"""From a budget to the widths of all families: one level for the whole network, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from bisparse.filters.budget import level_for
from bisparse.filters.options import FilterOptions
from bisparse.filters.widths import Scored, fill, widths_at

__all__ = ["Allocator", "Widths"]

_LATENCY_STEPS = 8
_Cost: TypeAlias = Callable[[Sequence[int]], float]


class Widths(NamedTuple):
    """Units that stay in every family, and the level that says so."""

    counts: list[int]
    level: float


class Allocator:
    """Finds the largest widths within a budget.

    Args:
        scored: what the units of every family are worth.
        options: how widths follow from a level.
        cost: of widths: parameters or multiply-adds.
    """

    def __init__(self, scored: Sequence[Scored], options: FilterOptions, cost: _Cost) -> None:
        self._options, self._cost = options, cost
        self._full = [len(one.scores) for one in scored]
        self._scored = [
            replace(one, price=cost(self._full) - cost(self._without_one(number)))
            for number, one in enumerate(scored)
        ]

    def within(self, keep: float) -> Widths:
        """Widths that cost at most this share of the whole.

        Raises:
            ValueError: even the least widths cost more.
        """
        return self._within(keep * self._cost(self._full))

    def timed(self, keep: float, latency: _Cost) -> Widths:
        """Widths whose time is at most this share: as many multiply-adds as that allows, to 1/256 of what can go.

        Args:
            keep: the share.
            latency: time at these widths, as a share of the original's.

        Raises:
            ValueError: even the least widths take longer.
        """
        most, least = self._cost(self._full), self._cost(self._at(self._bounds[1]))

        def without(share: float) -> Widths:
            return self._within(max(least, most - share * (most - least)))

        share = level_for(
            lambda share: without(share).counts, latency, keep, (0.0, 1.0), steps=_LATENCY_STEPS
        )
        return without(share)

    @property
    def _bounds(self) -> tuple[float, float]:
        """A level that removes nothing, and one that removes all that can be removed."""
        return (-80.0, 80.0) if self._options.allocated in ("eps", "error") else (0.0, 1.0)

    def _without_one(self, number: int) -> list[int]:
        return [width - (place == number) for place, width in enumerate(self._full)]

    def _at(self, level: float) -> list[int]:
        options = self._options
        return widths_at(
            self._scored, options.allocated, level, delta=options.delta, multiple=options.multiple
        )

    def _within(self, limit: float) -> Widths:
        level = level_for(self._at, self._cost, limit, self._bounds, whole=self._cost(self._full))
        counts = self._at(level)
        errors, multiple = self._options.allocated == "error", self._options.multiple
        if errors or multiple > 1:
            counts = fill(self._scored, counts, self._cost, limit, errors=errors, multiple=multiple)
        return Widths(counts, level)
