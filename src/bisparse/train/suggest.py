"""Which N of M suits each layer: from the densities that training arrived at."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from bisparse.pattern import NM, Pattern, TransposableNM
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.sparsifier import Sparsifier
from bisparse.weights import Selector, Selectors, find_weights

__all__ = ["suggest_patterns"]

_LOG = logging.getLogger(__name__)


def suggest_patterns(
    source: nn.Module | Sparsifier,
    blocks: Sequence[int] = (4, 8, 16, 32),
    *,
    transposable: bool = True,
    rounding: Literal["nearest", "up"] = "nearest",
    targets: Selectors | None = None,
    ignore: Selectors | None = (),
) -> dict[Selector, Pattern]:
    """For each weight the keep:block whose density is nearest to the share of entries that it keeps.

    Trained thresholds find how many weights each layer needs; a pattern then says where they may lie. The mapping is
    what :class:`bisparse.Sparsifier` and :func:`bisparse.prune` take as ``pattern``; weights that it does not name
    stay dense: those for which M of M is nearer than any N of M.

    Args:
        source: a prepared sparsifier, whose masks count, or a sparse model, whose zeros count.
        blocks: block sizes to choose from; of equally near patterns the first block's counts.
        transposable: suggest ``N:Mt``.
        rounding: ``nearest`` density; ``up`` = the nearest of those that are not below.
        targets: which weights of a model; see :func:`bisparse.prune`.
        ignore: which not; unlike there, nothing is protected by default.

    Returns:
        Pattern by parameter name.

    Raises:
        TypeError: a block that is no integer.
        ValueError: no block or one outside 2..64, an unknown rounding, a sparsifier that is not prepared, or a model
            without weights.

    Cost: one pass over the weights.
    """
    if rounding not in ("nearest", "up"):
        raise ValueError(f'rounding={rounding!r}: choose "nearest" or "up"')
    kind = TransposableNM if transposable else NM
    if not blocks:
        raise ValueError("blocks is empty: name block sizes, such as (4, 8)")
    for block in blocks:
        kind(1, block)  # refuses what is no block, also one that allows no pattern at all
    choices = [kind(keep, block) for block in blocks for keep in range(1, block)]
    densities = dict(_densities(source, targets, ignore))
    if not densities:
        raise ValueError("no weight to look at: prepare the sparsifier first, or see targets= and ignore=")
    found: dict[Selector, Pattern] = {}
    for name, density in densities.items():
        allowed = [p for p in choices if rounding == "nearest" or p.density >= density]
        best = min(allowed, key=lambda p: abs(p.density - density), default=None)
        if best is None or 1.0 - density < abs(best.density - density):
            _LOG.info("%s keeps %.1f%%: stays dense", name, 100 * density)
        else:
            _LOG.info("%s keeps %.1f%%: %s", name, 100 * density, best)
            found[name] = best
    return found


def _densities(
    source: nn.Module | Sparsifier, targets: Selectors | None, ignore: Selectors | None
) -> Iterator[tuple[str, float]]:
    if isinstance(source, Sparsifier):
        for name, weight in source.weights.items():
            yield name, _kept_share(weight)
        return
    for chosen in find_weights(source, targets, ignore):
        parameter = chosen.parameter.detach()
        yield chosen.name, int(parameter.count_nonzero()) / max(parameter.numel(), 1)


def _kept_share(weight: MaskedWeight) -> float:
    """Of the whole weight, where it is divided too."""
    figures = torch.stack(
        [weight.mask.sum(), torch.tensor(weight.mask.numel()).to(weight.mask.device)]
    ).double()
    if weight.sharding is not None:
        figures = weight.sharding.sum_(figures)
    kept, entries = figures.tolist()
    return float(kept / max(entries, 1.0))
