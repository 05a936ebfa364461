"""Scores of all families, by the measure that was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from bisparse.compress.calibration import Call
from bisparse.filters.bound import sample_size
from bisparse.filters.collect import LayerShares, collect_shares
from bisparse.filters.families import Family
from bisparse.filters.samples import call_size, split_samples
from bisparse.filters.sensitivity import KernelReduction
from bisparse.filters.trace import Trace
from bisparse.filters.walk import Product
from bisparse.filters.widths import Scored

__all__ = ["Sensitivities", "family_outputs", "sensitivities"]


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivities:
    """Sensitivities of a network's layers, and how they were found.

    Attributes:
        layers: by product.
        samples: that decided.
        checked: samples set apart.
    """

    layers: Mapping[Product, LayerShares]
    samples: int
    checked: int

    def of(self, family: Family) -> tuple[npt.NDArray[np.float64], float]:
        """(units,) the largest sensitivity in any layer that reads a unit; kappa, infinite if nothing was set apart."""
        scores, kappa = np.zeros(len(family)), 1.0 if self.checked else math.inf
        weights = {product.weight for product in family.read}
        for product, shares in self.layers.items():
            if product.weight not in weights:
                continue
            inside = np.isin(shares.units, family.units)
            places = np.searchsorted(family.units, shares.units[inside])
            first, second = shares.first.double().numpy()[inside], shares.second.double().numpy()[inside]
            scores[places] = np.maximum(scores[places], first)
            spoke = second > 0
            with np.errstate(divide="ignore"):
                kappa = max(kappa, float((second[spoke] / first[spoke]).max(initial=1.0)))
        return scores, kappa


def family_outputs(family: Family) -> float:
    """Outputs that read a family: channels times positions, over all layers."""
    return sum(len(product.outputs) * product.positions for product in family.read)


def sensitivities(
    model: nn.Module,
    trace: Trace,
    calls: Sequence[Call],
    *,
    samples: int | None,
    reduction: KernelReduction,
) -> Sensitivities:
    """Gather sensitivities from as many samples as are asked for, or as the paper's formula wants."""
    sizes = [len(product.outputs) * product.positions for product in trace.products]
    wanted = samples if samples is not None else sample_size(sizes)
    parts = split_samples(calls, wanted, exact=samples is not None)
    layers = collect_shares(model, trace, parts, reduction=reduction)
    counts = [sum(call_size(call) for call in part) for part in parts]
    return Sensitivities(layers, *counts)


def scored(families: Sequence[Family], values: Sequence[npt.NDArray[np.float64]]) -> list[Scored]:
    """Scores with what the formulas of the guarantee need."""
    return [Scored(value, family_outputs(family)) for family, value in zip(families, values, strict=True)]
