"""Soft-threshold straight-through estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from bisparse.pattern import NM, Pattern, TransposableNM
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.rules.rule import Rule, Update, shrink_
from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["SSte", "soft_threshold"]


class SSte(Rule):
    """The forward pass sees beta * sign(W) * max(abs(W) - t, 0) on kept entries; gradients reach W unchanged.

    The threshold t makes what the forward pass sees a continuous function of W, where a plain mask jumps:

    - N:M: the largest magnitude that is dropped in the entry's group;
    - unstructured: the largest magnitude that is dropped;
    - transposable N:M: the sum of the entry's row and column potentials in the certificate of the last solve
      (which kept entries exceed and dropped ones do not), at least 0.

    The scale beta = <W, S> / <S, S> makes up for the shrinkage; it is computed once, at the first masks, and
    stays (a scale that moves makes masks flip). Between two refreshes a kept entry that falls below its
    threshold shows 0. The paper refreshes at every step.

    Source: Hu et al. 2024, S-STE (arXiv 2409.09099); the transposable threshold is this library's extension.
    """

    hides_all: ClassVar[bool] = True

    def check(self, weight: MaskedWeight) -> None:
        """Groups of the pattern must be whole on each process, and transposable masks have their potentials.

        Raises:
            ValueError: they are not, or have none.
        """
        _local_layout(weight)
        if isinstance(weight.pattern, TransposableNM) and weight.refreshes and weight.duals is None:
            raise ValueError(
                f'{weight.name}: rule "s-ste" needs the potentials of exact masks: method="exact"'
            )

    def reveal_(self, weights: Sequence[MaskedWeight]) -> None:
        """The parameter becomes W."""
        if weights:
            torch._foreach_copy_([w.values for w in weights], [w.hidden for w in weights])

    def hide_(self, weights: Sequence[MaskedWeight]) -> None:
        """W is kept whole; the parameter becomes its soft threshold."""
        for weight in weights:
            values = weight.values
            weight.hidden.copy_(values)
            values.copy_(_shown(weight))

    def catch_up_(self, update: Update) -> None:
        """W takes the step that the optimizer made from what the forward pass saw."""
        for weight in update.weights:
            moved = weight.values - _shown(weight)
            shrink_([weight.hidden], update.learning_rate, update.weight_decay)
            torch.add(weight.hidden, moved, out=weight.values)


def _shown(weight: MaskedWeight) -> Tensor:
    """What the forward pass sees of W (in ``hidden``)."""
    soft = soft_threshold(weight.hidden, weight)
    if "scale" not in weight.extra:
        products = torch.stack([(weight.hidden * soft).sum(), (soft * soft).sum()])
        if weight.sharding is not None:
            products = weight.sharding.sum_(products)
        weight.extra["scale"] = torch.where(products[1] > 0, products[0] / products[1], 1.0)
    return soft * weight.extra["scale"]


def soft_threshold(values: Tensor, weight: MaskedWeight) -> Tensor:
    """sign(W) * max(|W| - t, 0) on the entries that the mask keeps."""
    layout = _local_layout(weight)
    magnitude, mask = as_matrices(values.abs(), layout), as_matrices(weight.mask, layout)
    thresholds = _thresholds(magnitude, mask, weight, weight.pattern)
    soft = (magnitude - thresholds).clamp_(min=0).mul_(mask)
    return from_matrices(soft, layout, values.shape).mul_(values.sign())


def _local_layout(weight: MaskedWeight) -> Layout:
    if weight.sharding is None:
        return weight.layout
    clean = weight.sharding.local_layout(weight.layout, weight.pattern)
    if clean is None:
        raise ValueError(
            f'{weight.name}: rule "s-ste" needs whole groups of {weight.pattern} on each process, but the weight is '
            f'divided as {weight.sharding.placements}; use "sr-ste" or "ste"'
        )
    return clean


def _thresholds(magnitude: Tensor, mask: Tensor, weight: MaskedWeight, pattern: Pattern) -> Tensor:
    """Thresholds that broadcast over (batch, rows, columns)."""
    if isinstance(pattern, TransposableNM):
        if weight.duals is None:
            raise ValueError(
                f'{weight.name}: rule "s-ste" needs the potentials of exact masks: method="exact"'
            )
        rows, columns = weight.duals.rows.to(magnitude), weight.duals.columns.to(magnitude)
        height, width = magnitude.shape[1:]
        across = rows.repeat_interleave(pattern.block, dim=2)[..., :width]
        down = columns.repeat_interleave(pattern.block, dim=1)[:, :height]
        return (across + down).clamp_(min=0)
    dropped = magnitude.masked_fill(mask, 0.0)
    if not isinstance(pattern, NM):
        return dropped.amax()
    width = magnitude.shape[2]
    padded = torch.nn.functional.pad(dropped, (0, -width % pattern.block))
    largest: Tensor = padded.reshape(*padded.shape[:2], -1, pattern.block).amax(-1)
    return largest.repeat_interleave(pattern.block, dim=2)[..., :width]
