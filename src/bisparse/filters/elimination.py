"""Channels eliminated one after the other, each time the one whose absence refitting makes up for best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.filters.collect import check_finite, input_pieces, layer_weight
from bisparse.filters.families import Family
from bisparse.filters.indices import Ids
from bisparse.filters.output_change import OutputChange
from bisparse.filters.trace import Trace
from bisparse.filters.walk import Product

__all__ = ["elimination_errors"]

_STEPS = 128  # eliminations per family at most; wide layers lose several channels at once
_MEASURED = (0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0)
"""Shares of a family's units at which the outputs are looked at."""


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


class _Elimination:
    """The units of one family, and the layers that read them while these lose one unit after the other."""

    def __init__(
        self, family: Family, trace: Trace, model: nn.Module, moments: Mapping[str, _Moments], damping: float
    ) -> None:
        self.alive: list[int] = family.units.tolist()
        self._count = max(1, len(family) // _STEPS)
        self._model, self._moments = model, moments
        self._readers = {
            product.weight: _readers(product, trace, model, moments[product.weight], damping)
            for product in family.read
        }

    def down_to(self, width: int) -> dict[int, float]:
        """Eliminate until so many units are left; the increase of the readers' errors by unit, in this order."""
        gone: dict[int, float] = {}
        readers = [reader for parts in self._readers.values() for reader in parts]
        while len(self.alive) > width:
            losses = torch.stack([_known(reader, self.alive) for reader in readers]).sum(0)
            count = min(self._count, len(self.alive) - width)
            chosen = {
                self.alive[place]: max(float(losses[place]), 0.0)
                for place in torch.argsort(losses, stable=True)[:count].tolist()
            }
            for reader in readers:
                present = [unit for unit in chosen if unit in reader.columns]
                if present:
                    reader.remove(present)
            self.alive = [unit for unit in self.alive if unit not in chosen]
            gone |= chosen
        return gone

    def weights(self) -> dict[str, Tensor]:
        """The readers' weights by name, refitted to the units that are left."""
        found: dict[str, Tensor] = {}
        for name, parts in self._readers.items():
            weight = self._model.get_parameter(name).detach().clone(memory_format=torch.contiguous_format)
            view = layer_weight(self._moments[name].module, weight)
            view.copy_(torch.cat([part.weight for part in parts]).view(view.shape))
            found[name] = weight
        return found


def elimination_errors(
    model: nn.Module,
    trace: Trace,
    families: Sequence[Family],
    calls: Sequence[Call],
    *,
    samples: int = 128,
    damping: float = 1e-4,
) -> list[npt.NDArray[np.float64]]:
    """What the network's outputs lose by the time a unit is eliminated, after refitting the layers that read it.

    Which unit of a family goes next: the one whose absence adds least to ``sum over readers of
    |W X - W' X'|^2 / |W X|^2``, W' being the best weights for the channels that are left; this has a closed form in
    the inverse second moments, which are updated, and the weights with them. What that is worth: errors of layers do
    not compare between families, as what follows may hide or enlarge them. So at eight widths of every family, the
    whole network runs with its readers refitted and all else as it was; between those widths, the change of the
    outputs is divided in proportion to the readers' errors.

    Args:
        model: in evaluation mode.
        trace: of the model.
        families: what may be removed.
        calls: calibration data; all of it goes into the moments.
        samples: of it, at most, on which outputs are compared.
        damping: of the moments, as a share of their mean diagonal.

    Returns:
        Per family (units,): the relative squared change of the outputs when this unit goes, and those before it;
        so the units that go first have the smallest numbers, and numbers of all families compare.

    Raises:
        TypeError: the model returns no tensor.

    Cost: an inverse per layer, then at most 128 updates of rank K (kernel positions) and eight forward passes of the
    samples per family.

    Source: Hassibi and Stork, "Optimal Brain Surgeon", 1993; for structures: Kurtic et al., "ZipLM", 2023.
    """
    moments = _collect(model, families, calls)
    change = OutputChange(model, calls, samples)
    return [
        _errors(family.units.tolist(), _Elimination(family, trace, model, moments, damping), change)
        for family in families
    ]


def _errors(units: Sequence[int], elimination: _Elimination, change: OutputChange) -> npt.NDArray[np.float64]:
    """Accumulated change of the outputs by unit; the last unit of a family never goes cheaply."""
    errors: dict[int, float] = {}
    reached = 0.0
    for share in _MEASURED:
        gone = elimination.down_to(max(1, round(share * len(units))))
        if gone:
            before, reached = reached, max(reached, change(elimination.weights()))
            errors |= dict(zip(gone, _between(before, reached, list(gone.values())), strict=True))
    return np.array([errors.get(unit, 2.0 * reached + 1.0) for unit in units])


def _between(before: float, after: float, increases: Sequence[float]) -> npt.NDArray[np.float64]:
    """Numbers that rise from one to the other in proportion to the increases."""
    parts = np.cumsum(increases)
    parts = parts / parts[-1] if parts[-1] > 0 else np.arange(1, len(parts) + 1) / len(parts)
    return np.asarray(before + (after - before) * parts)


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

        def watch(
            module: nn.Module, args: tuple[Tensor, ...], sums: list[Tensor] = sums, name: str = product.weight
        ) -> None:
            check_finite(args[0], name)
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


def _known(reader: _Reader, units: Sequence[int]) -> Tensor:
    """Losses of the units that the layer reads; 0 for others."""
    losses = torch.zeros(len(units), dtype=torch.float64)
    present = [place for place, unit in enumerate(units) if unit in reader.columns]
    if present:
        losses[present] = reader.losses([units[place] for place in present])
    return losses
