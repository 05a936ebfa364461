"""What each weight of a module is multiplied with, seen from a call of the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from bisparse.weights import Weight

__all__ = ["Features", "Reader", "Stage", "flat_samples"]

Features: TypeAlias = list[Tensor]
"""One (n, D) tensor per group of the weight's rows view; n may differ between groups."""

Reader: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any], "Tensor | None"], dict[str, Features]]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Weights of one module that are solved together, and how to read their inputs.

    Attributes:
        weights: the weights, in the order in which they are solved.
        features: ``(args, kwargs, valid) -> {weight name: features}`` of one call of the module, computed
            with the weights that the module has at that moment.
    """

    weights: tuple[Weight, ...]
    features: Reader
    targets: Reader | None = None


def flat_samples(inputs: Tensor, valid: Tensor | None) -> Tensor:
    """(..., D) inputs as (n, D) samples without padding tokens.

    Args:
        inputs: any leading shape.
        valid: (batch, tokens) boolean; applied where the leading shape is (batch, tokens), (tokens, batch) or
            their product, ignored elsewhere (pooled features have no token axis).
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    if valid is None:
        return flat
    lead = tuple(inputs.shape[:-1])
    if lead == tuple(valid.shape) or lead == (valid.numel(),):
        return flat[valid.reshape(-1).to(flat.device)]
    if lead == tuple(valid.shape[::-1]):
        return flat[valid.t().reshape(-1).to(flat.device)]
    return flat
