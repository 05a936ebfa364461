"""Which pattern each weight of a model is to obey."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeAlias

from torch import nn

from bisparse.pattern import NM, Pattern, parse_pattern
from bisparse.weights.find import Weight, WeightSelection, find_weights
from bisparse.weights.layout import Layout
from bisparse.weights.select import Selector, Selectors, matches

__all__ = ["PatternChoice", "assign_patterns"]

_LOG = logging.getLogger(__name__)

PatternChoice: TypeAlias = "str | Pattern | Mapping[Selector, str | Pattern]"


def _assigned(pattern: PatternChoice, weights: WeightSelection) -> tuple[dict[str, Pattern], dict[str, str]]:
    """Pattern by weight name, and the reason for every weight that gets none."""
    left_out = {item.name: item.reason for item in weights.left_out}
    if not isinstance(pattern, Mapping):
        parsed = parse_pattern(pattern)
        return {weight.name: parsed for weight in weights}, left_out
    choices = [(selector, parse_pattern(value)) for selector, value in pattern.items()]
    assigned: dict[str, Pattern] = {}
    for weight in weights:
        found = next((p for s, p in choices if matches(s, weight.name, weight.module)), None)
        if found is None:
            left_out[weight.name] = "no pattern of the mapping matches it"
        else:
            assigned[weight.name] = found
    return assigned, left_out


def assign_patterns(
    model: nn.Module,
    pattern: PatternChoice,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    layouts: Mapping[str, Layout] | None = None,
    *,
    sharded: bool = False,
) -> tuple[list[Weight], dict[str, Pattern], dict[str, str]]:
    """Choose weights and give each its pattern; the choice, with reasons, goes to the log.

    Args:
        model: any module.
        pattern: one for all, or a mapping from selectors to patterns, of which the first match counts.
        targets: see :func:`bisparse.weights.find_weights`.
        ignore: likewise.
        layouts: likewise.
        sharded: also choose distributed tensors.

    Returns:
        The weights, their patterns by name, and the reason for every weight that is left out, by name.

    Raises:
        TypeError: a pattern that is neither text nor a pattern.
        ValueError: no weight is left, a misspelt name, or a row-wise pattern for a weight whose input axis is
            unknown.
    """
    selection = find_weights(model, targets, ignore, layouts=layouts, sharded=sharded)
    patterns, left_out = _assigned(pattern, selection)
    weights = [weight for weight in selection if weight.name in patterns]
    if not weights:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:8])
        raise ValueError(f"no weight to prune ({reasons or 'the model has none'}); see targets= and ignore=")
    for weight in weights:
        if isinstance(patterns[weight.name], NM) and not weight.layout.oriented:
            raise ValueError(
                f"{weight.name}: {patterns[weight.name]} must know which axis of {tuple(weight.parameter.shape)} is "
                f"the input; pass layouts={{{weight.name!r}: ...}} or use the transposable {patterns[weight.name]}t"
            )
        _LOG.info("%s: %s (%s)", weight.name, patterns[weight.name], weight.reason)
    for name, reason in left_out.items():
        _LOG.info("%s: left out, %s", name, reason)
    return weights, patterns, left_out
