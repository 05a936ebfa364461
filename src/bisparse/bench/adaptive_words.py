"""What the kernel benchmark says, in words that are written from its rows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from bisparse.bench.adaptive_correlations import MEASURES, Correlation, correlations, grouped
from bisparse.bench.ledger import Row

__all__ = ["adaptive_words"]

_DIVERSITIES = ("diversity_paper", "diversity_exact")


def adaptive_words(rows: Sequence[Row]) -> str:
    """Which measures predict best, what cannot be told apart, where mask diversity stands, whose sign changes.

    Two means count as different when they are more than two standard errors apart: those of a rank correlation over n
    masks, 1/sqrt(n - 1), averaged over the columns.
    """
    every, drawn = grouped(rows), grouped(rows, choice="random")
    if not every:
        return "Nothing is measured yet.\n"
    sentences = [*_all_masks(every), *_random_masks(drawn)]
    return textwrap.fill(" ".join(sentences), 120) + "\n"


def _known(groups: Sequence[Sequence[Row]]) -> dict[str, Correlation]:
    """The measures that vary, from the best down."""
    found = {name: correlations(groups, name) for name in MEASURES}
    order = sorted((n for n in found if not math.isnan(found[n].mean)), key=lambda name: -found[name].mean)
    return {name: found[name] for name in order}


def _two_errors(groups: Sequence[Sequence[Row]]) -> float:
    size = min(len(group) for group in groups)
    return 2.0 / math.sqrt(max(size - 1, 1) * len(groups))


def _all_masks(groups: Sequence[Sequence[Row]]) -> list[str]:
    known, margin = _known(groups), _two_errors(groups)
    if not known:
        return []
    best, *others = known
    floor = known[best].mean - margin
    near = [_named(known, name) for name in others if known[name].mean >= floor]
    told = (
        f"not to be told apart from it, being within two standard errors ({margin:.2f}): {_listed(near)}."
        if near
        else f"all others are more than two standard errors ({margin:.2f}) behind."
    )
    return [
        f"Best on average: {_named(known, best)}; {told}",
        *_diversity(known, floor),
        *_unsteady(known, groups),
    ]


def _diversity(known: dict[str, Correlation], floor: float) -> list[str]:
    """Mask diversity against the best."""
    there = [name for name in _DIVERSITIES if name in known]
    if not there:
        return []
    behind = all(known[name].mean < floor for name in there)
    where = "behind these" if behind else "not clearly behind the best"
    return [f"Mask diversity is {where}: {_kinds(known, there)}."]


def _unsteady(known: dict[str, Correlation], groups: Sequence[Sequence[Row]]) -> list[str]:
    """Measures that clearly point both ways."""
    clear = 2.0 / math.sqrt(max(min(len(group) for group in groups) - 1, 1))
    found = [
        f"{MEASURES[name]} ({min(one.known):+.2f} to {max(one.known):+.2f})"
        for name, one in known.items()
        if min(one.known) < -clear and max(one.known) > clear
    ]
    return (
        [f"No predictor, because the sign changes from column to column: {_listed(found)}."] if found else []
    )


def _random_masks(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Where nothing but the pattern differs."""
    known = _known(groups)
    there = [name for name in _DIVERSITIES if name in known]
    if not there:
        return []
    values = known[there[0]].known
    wrong = sum(value < 0 for value in values)
    return [
        f"Among random masks, where only the pattern differs, the best is {_named(known, next(iter(known)))}, and mask "
        f"diversity is at {_kinds(known, there)}: it points the wrong way in {wrong} of "
        f"{len(values)} columns (two standard errors here: {_two_errors(groups):.2f})."
    ]


def _named(known: dict[str, Correlation], name: str) -> str:
    return f"{MEASURES[name]} ({known[name].mean:+.2f})"


def _kinds(known: dict[str, Correlation], diversities: Sequence[str]) -> str:
    """The means of both ways of counting masks."""
    return ", ".join(
        f"{known[name].mean:+.2f} ({MEASURES[name].removeprefix('mask diversity, ')})" for name in diversities
    )


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts)
