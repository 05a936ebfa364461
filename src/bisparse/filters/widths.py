"""Which units stay: from one number for the whole network to a choice for every family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bisparse.filters.bound import draws_for_distinct, draws_needed, expected_distinct

__all__ = ["Allocation", "Choice", "Scored", "Selection", "choose", "fill", "widths_at"]

_SILENT = 1e-30  # stands for no score: such units go first, but not before the budget asks for it
Selection: TypeAlias = Literal["top", "random", "hybrid"]
Allocation: TypeAlias = Literal["eps", "error", "uniform", "global"]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What the units of a family are worth.

    Attributes:
        scores: (units,) non-negative float64.
        outputs: outputs that the guarantee of the layers behind covers: channels times positions.
        minimum: units that must stay.
        price: what one unit costs, in parameters or multiply-adds.
    """

    scores: npt.NDArray[np.float64]
    outputs: float = 1.0
    minimum: int = 1
    price: float = 1.0

    @property
    def total(self) -> float:
        """The sum of the scores."""
        return float(self.scores.sum())

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Scores as probabilities; uniform where all scores are 0."""
        total = self.total
        return self.scores / total if total > 0 else np.full(len(self.scores), 1 / len(self.scores))


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The units of a family that stay.

    Attributes:
        kept: (units,) boolean.
        scales: (units,) what the layers behind are multiplied by.
        draws: how many draws were made, or would give as many distinct units.
        sampled: share of the scores among which was drawn; 0 for a choice without chance.
    """

    kept: npt.NDArray[np.bool_]
    scales: npt.NDArray[np.float64]
    draws: float
    sampled: float = 0.0


def widths_at(
    families: Sequence[Scored],
    allocation: Allocation,
    level: float,
    *,
    delta: float = 1e-16,
    multiple: int = 1,
) -> list[int]:
    """Units that stay in every family at one level for the whole network.

    Args:
        families: their scores.
        allocation: ``"eps"``: level is the logarithm of the relative error that the draws of every family guarantee,
            and as many units stay as distinct ones are expected; ``"error"``: scores are accumulated errors, level is
            the logarithm of the error that one parameter (or multiply-add) is worth; ``"uniform"``: the share that is
            removed from every family; ``"global"``: the share removed of all units together, by scores divided by
            their family's norm.
        level: larger levels keep less.
        delta: probability of failure in the formula of the draws. The smaller, the less the number of outputs
            counts against S; the default is the published code's.
        multiple: widths are rounded up to a multiple of this (of the tile size of a pattern that comes after).

    Returns:
        One width per family, falling with the level, at least the family's minimum.
    """
    if allocation == "eps":
        eps = math.exp(level)
        wanted = [
            expected_distinct(
                draws_needed(eps, max(family.total, _SILENT), delta=delta, outputs=family.outputs),
                np.maximum(family.probabilities, _SILENT),
            )
            for family in families
        ]
    elif allocation == "error":
        wanted = [float((_marginal(family) > math.exp(level)).sum()) for family in families]
    elif allocation == "uniform":
        wanted = [(1 - level) * len(family.scores) for family in families]
    else:
        norms = [np.linalg.norm(family.scores) or 1.0 for family in families]
        pooled = np.concatenate([family.scores / norm for family, norm in zip(families, norms, strict=True)])
        cut = np.sort(pooled)[min(int(level * len(pooled)), len(pooled) - 1)]
        wanted = [
            float((family.scores / norm >= cut).sum()) for family, norm in zip(families, norms, strict=True)
        ]
    return [_rounded(width, family, multiple) for width, family in zip(wanted, families, strict=True)]


def fill(
    families: Sequence[Scored],
    widths: Sequence[int],
    cost: Callable[[Sequence[int]], float],
    limit: float,
    *,
    errors: bool = True,
    multiple: int = 1,
) -> list[int]:
    """Spend what single units, or rounded widths, left of a budget: widths grow where units are worth most for their
    price.

    One unit of a wide family (all layers that add to one residual sum, say) may cost more than is left, while units of
    others still fit; and where many families are equally wide, multiples make all of them jump at once.

    Args:
        families: that grow.
        widths: within the limit.
        cost: of widths.
        limit: of the cost.
        errors: whether scores are accumulated errors, of which a unit is worth its own part; else it is worth its
            share of the scores.
        multiple: that widths are of.
    """
    grown = list(widths)
    worth = [(_marginal(family) if errors else _shares(family))[::-1] for family in families]
    while True:
        fitting = []
        for number, width in enumerate(grown):
            wider = min(len(worth[number]), width + multiple)
            trial = [*grown[:number], wider, *grown[number + 1 :]]
            if wider > width and cost(trial) <= limit:
                fitting.append((float(worth[number][width]), -number, trial))
        if not fitting:
            return grown
        grown = max(fitting)[2]


def _marginal(family: Scored) -> npt.NDArray[np.float64]:
    """What each further unit adds to the error, per unit of its price; never falling, and one by one if nothing."""
    count = len(family.scores)
    steps = np.diff(np.sort(family.scores), prepend=0.0)
    nothing = _SILENT * (1 + np.arange(count) / count)
    return np.maximum(np.maximum.accumulate(steps) / max(family.price, 1e-300), nothing)


def _shares(family: Scored) -> npt.NDArray[np.float64]:
    """What share of the scores each unit holds, per unit of its price; never falling."""
    return np.asarray(np.sort(family.probabilities) / max(family.price, 1e-300))


def _rounded(width: float, family: Scored, multiple: int) -> int:
    up = math.ceil(max(width - 1e-9, 1) / multiple) * multiple
    return min(len(family.scores), max(family.minimum, up))


def choose(
    family: Scored, width: int, selection: Selection, *, rescale: bool, generator: np.random.Generator
) -> Choice:
    """The units that stay.

    Args:
        family: its scores.
        width: how many units are to stay; expected, for the random choices.
        selection: ``"top"``: the best ones; ``"random"``: drawn with replacement in proportion to the scores and
            reweighted, so that every output is right on average; ``"hybrid"``: units that are more probable than one
            draw in ``m`` stay as they are, the others are drawn.
        rescale: for ``"top"``: divide by the share of the scores that is kept.
        generator: of the draws.
    """
    count, p = len(family.scores), family.probabilities
    ones = np.ones(count)
    if width >= count:
        return Choice(np.ones(count, dtype=bool), ones, math.inf)
    draws = draws_for_distinct(width, p)
    if selection == "top" or not math.isfinite(draws):
        kept = np.zeros(count, dtype=bool)
        kept[np.argsort(-family.scores, kind="stable")[:width]] = True
        share = float(p[kept].sum())
        return Choice(kept, ones / share if rescale and share > 0 else ones, draws)
    if selection == "random":
        return _drawn(p, max(1, math.ceil(draws)), np.zeros(count, dtype=bool), 1.0, generator)
    certain = p >= 1 / max(draws, 1.0)
    certain &= np.argsort(np.argsort(-p, kind="stable"), kind="stable") < width
    rest = np.where(certain, 0.0, p)
    left = width - int(certain.sum())
    if left <= 0 or rest.sum() <= 0:
        return Choice(certain, ones, float(draws))
    sampled = float(rest.sum())
    rest /= sampled
    again = draws_for_distinct(left, rest)
    again = draws if not math.isfinite(again) else again
    return _drawn(rest, max(1, math.ceil(again)), certain, sampled, generator)


def _drawn(
    p: npt.NDArray[np.float64],
    draws: int,
    certain: npt.NDArray[np.bool_],
    sampled: float,
    generator: np.random.Generator,
) -> Choice:
    """Counts of independent draws as weights: n_c / (m p_c), which is 1 on average."""
    counts = generator.multinomial(draws, p / p.sum())
    scales = np.where(certain, 1.0, np.divide(counts, draws * p, out=np.zeros(len(p)), where=p > 0))
    kept = certain | (counts > 0)
    return Choice(kept, np.where(kept, scales, 1.0), float(draws), sampled)
