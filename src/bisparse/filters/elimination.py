"""Channels eliminated one after the other, each time the one whose absence refitting makes up for best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.filters.collect import input_pieces, layer_weight
from bisparse.filters.families import Family
from bisparse.filters.indices import Ids
from bisparse.filters.trace import Trace
from bisparse.filters.walk import Product

__all__ = ["elimination_errors"]

_STEPS = 128  # eliminations per family at most; wide layers lose several channels at once


class _Reader:
    """One layer (one group of a grouped convolution): weights, inverse second moments of its inputs, energy."""

    def __init__(self, weight: Tensor, moments: Tensor, units: Ids, damping: float) -> None:
        scale = moments.diagonal().mean().clamp(min=torch.finfo(moments.dtype).tiny)
        damped = moments + damping * scale * torch.eye(len(moments), dtype=moments.dtype)
        self.weight = weight.clone()
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        self.energy = float(((weight @ moments) * weight).sum())
        self.columns = {int(unit): np.flatnonzero(units == unit) for unit in np.unique(units)}

    def losses(self, units: Sequence[int]) -> Tensor:
        """Squared output error that each unit alone would add, as a share of the energy."""
        if self.energy <= 0:
            return torch.zeros(len(units), dtype=torch.float64)
        columns = torch.from_numpy(np.stack([self.columns[unit] for unit in units]))  # (U, R)
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]  # (U, R, R)
        weights = self.weight[:, columns].permute(1, 2, 0)  # (U, R, O)
        losses: Tensor = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2)) / self.energy
        return losses

    def remove(self, units: Sequence[int]) -> None:
        """Refit the other columns as if these had never been there."""
        gone = torch.from_numpy(np.concatenate([self.columns[unit] for unit in units]))
        cross = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone])  # (R, n)
        self.weight -= self.weight[:, gone] @ cross
        self.inverse -= self.inverse[:, gone] @ cross
        self.weight[:, gone] = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Second moments of a layer's inputs, (groups, n, n)."""

    module: nn.Module
    sums: list[Tensor]


def elimination_errors(
    model: nn.Module,
    trace: Trace,
    families: Sequence[Family],
    calls: Sequence[Call],
    *,
    damping: float = 1e-4,
) -> list[npt.NDArray[np.float64]]:
    """What the outputs of the layers that read a unit lose by the time it is eliminated, after refitting.

    Problem: remove units so that ``sum over readers of |W X - W' X'|^2 / |W X|^2`` stays small, W' being the best
    weights for the channels that are left. Greedy: each step removes the unit of least increase, which has a closed
    form in the inverse second moments, and updates weights and inverse.

    Returns:
        Per family (units,): the accumulated relative squared error when this unit goes; so the units that go first
        have the smallest numbers.

    Cost: an inverse per layer, then at most 128 updates of rank K (kernel positions) per family.

    Source: Hassibi and Stork, "Optimal Brain Surgeon", 1993; for structures: Kurtic et al., "ZipLM", 2023.
    """
    moments = _collect(model, families, calls)
    return [_eliminate(family, trace, model, moments, damping) for family in families]


def _collect(model: nn.Module, families: Sequence[Family], calls: Sequence[Call]) -> Mapping[str, _Moments]:
    found: dict[str, _Moments] = {}
    handles = []
    valid: Tensor | None = None
    for product in {p.weight: p for family in families for p in family.read}.values():
        module = model.get_submodule(product.weight.rpartition(".")[0])
        size = len(product.inputs) * (
            model.get_parameter(product.weight).numel() // (len(product.inputs) * len(product.outputs))
        )
        sums = [torch.zeros(size, size, dtype=torch.float64) for _ in range(product.groups)]
        found[product.weight] = _Moments(module, sums)

        def watch(module: nn.Module, args: tuple[Tensor, ...], sums: list[Tensor] = sums) -> None:
            for windows in input_pieces(module, args[0], valid):
                for total, part in zip(sums, windows.chunk(len(sums)), strict=True):
                    flat = part.flatten(0, 1)
                    total += (flat @ flat.t()).double().cpu()

        handles.append(module.register_forward_pre_hook(watch))
    try:
        with evaluation_state(model):
            for call in calls:
                valid = call.valid
                call.run(model)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _readers(
    product: Product, trace: Trace, model: nn.Module, moments: _Moments, damping: float
) -> list[_Reader]:
    weight = layer_weight(moments.module, model.get_parameter(product.weight).detach()).double().cpu()
    units = np.repeat(trace.units[product.inputs], weight.shape[2])
    return [
        _Reader(part.flatten(1), sums, units, damping)
        for part, sums in zip(weight.chunk(product.groups), moments.sums, strict=True)
    ]


def _eliminate(
    family: Family, trace: Trace, model: nn.Module, moments: Mapping[str, _Moments], damping: float
) -> npt.NDArray[np.float64]:
    readers = [
        reader
        for product in family.read
        for reader in _readers(product, trace, model, moments[product.weight], damping)
    ]
    alive, error = family.units.tolist(), 0.0
    errors = dict.fromkeys(alive, np.inf)
    while len(alive) > 1:
        losses = torch.stack([_known(reader, alive) for reader in readers]).sum(0)
        count = max(1, len(family) // _STEPS)
        worst = torch.argsort(losses, stable=True)[: min(count, len(alive) - 1)].tolist()
        chosen = [alive[place] for place in worst]
        for place, unit in zip(worst, chosen, strict=True):
            error += max(float(losses[place]), 0.0)
            errors[unit] = error
        for reader in readers:
            present = [unit for unit in chosen if unit in reader.columns]
            if present:
                reader.remove(present)
        alive = [unit for unit in alive if unit not in set(chosen)]
    last = max((value for value in errors.values() if np.isfinite(value)), default=0.0)
    return np.array([min(errors[unit], 2.0 * last + 1.0) for unit in family.units.tolist()])


def _known(reader: _Reader, units: Sequence[int]) -> Tensor:
    """Losses of the units that the layer reads; 0 for others."""
    losses = torch.zeros(len(units), dtype=torch.float64)
    present = [place for place, unit in enumerate(units) if unit in reader.columns]
    if present:
        losses[present] = reader.losses([units[place] for place in present])
    return losses
