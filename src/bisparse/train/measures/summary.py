"""Everything that is measured, as one dict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from bisparse.diversity import mask_diversity
from bisparse.pattern import Unstructured
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.neurons import neurons
from bisparse.train.measures.record import Record
from bisparse.weights import as_matrices

__all__ = ["summary"]


def summary(
    weights: Sequence[MaskedWeight], record: Record, times: dict[str, float], *, diversity: bool = True
) -> dict[str, Any]:
    """Totals, times, and ``layers``: the same figures by weight name.

    ``mask_diversity_log10`` is the logarithm of the number of masks that the pattern allows. With it, unstructured
    layers get the degrees of their neurons (of the whole weight: where processes have parts, not at all).
    """
    layers: dict[str, dict[str, Any]] = {}
    for weight in weights:
        if weight.name in record.layers:
            figures: dict[str, Any] = record.layers[weight.name].to_dict()
            if diversity:
                figures["mask_diversity_log10"] = mask_diversity(weight.pattern, _matrix_shape(weight)).log10
                figures |= _degrees(weight)
            layers[weight.name] = {"pattern": str(weight.pattern), **figures}
    logarithms = [layer.get("mask_diversity_log10", 0.0) for layer in layers.values()]
    return {
        "step": max((weight.steps for weight in weights), default=0),
        "refreshes": max((weight.refreshes for weight in weights), default=0),
        **record.total().to_dict(),
        **({"mask_diversity_log10": math.fsum(logarithms)} if diversity else {}),
        **times,
        "layers": layers,
    }


def _degrees(weight: MaskedWeight) -> dict[str, float]:
    if weight.sharding is not None or not isinstance(weight.pattern, Unstructured):
        return {}
    return neurons(weight.values, weight.mask, weight.layout).to_dict()


def _matrix_shape(weight: MaskedWeight) -> tuple[int, ...]:
    whole = torch.empty(weight.shape, device="meta")
    return tuple(as_matrices(whole, weight.layout).shape)
