"""From the units that are removed to the plan that removes them, and the masked network that it must equal."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from bisparse.filters.indices import Ids
from bisparse.filters.plan import FilterPlan, tensors_of
from bisparse.filters.trace import Trace, head_counts
from bisparse.filters.walk import Split

__all__ = ["make_plan", "mask_removed_", "scale_inputs_"]


def _aliases(model: nn.Module) -> dict[str, list[str]]:
    """Name to all names of the same tensor."""
    names: dict[int, list[str]] = {}
    tensors = tensors_of(model)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return {name: names[id(tensor)] for name, tensor in tensors.items()}


def make_plan(model: nn.Module, trace: Trace, removed: Collection[int]) -> FilterPlan:
    """What is kept of every tensor when these units go."""
    gone = np.fromiter(removed, dtype=np.int64, count=len(removed))
    aliases = _aliases(model)
    kept: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, dims in trace.parameters.items():
        for number, axis in enumerate(dims):
            if axis is None:
                continue
            stays = ~np.isin(trace.units[axis], gone)
            if not stays.all():
                for alias in aliases[name]:
                    kept.setdefault(alias, {})[number] = tuple(np.flatnonzero(stays).tolist())
    attributes: dict[str, dict[str, int]] = {}
    for padding in trace.paddings:
        front, back = (int((~np.isin(trace.units[ids], gone)).sum()) for ids in (padding.front, padding.back))
        if (front, back) != (len(padding.front), len(padding.back)):
            attributes[padding.module] = {"channels_front": front, "channels_back": back}
    for split in trace.splits:
        _adapt_split(model, trace, split, gone, attributes)
    tensors = tensors_of(model)
    return FilterPlan(kept, {name: tuple(tensors[name].shape) for name in kept}, attributes)


def _adapt_split(
    model: nn.Module, trace: Trace, split: Split, gone: Ids, attributes: dict[str, dict[str, int]]
) -> None:
    """Change the number of heads where a module keeps it in an attribute whose name says so."""
    if split.parts is None:
        return
    before = len(split.parts)
    after = int((~np.isin(trace.units[split.parts], gone)).sum())
    if after == before:
        return
    for path in reversed(split.modules):
        module = model.get_submodule(path)
        found = [name for name, count in head_counts(module).items() if count == before]
        if found:
            attributes.setdefault(path, {}).update(dict.fromkeys(found, after))
            return


@torch.no_grad()
def mask_removed_(model: nn.Module, plan: FilterPlan) -> nn.Module:
    """Set to zero, at full size, every parameter entry that the plan removes: the network that is to be equalled."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name, dims in plan.kept.items():
        if name in tensors:
            tensor = tensors[name]
            for dim, ids in dims.items():
                mask = torch.zeros(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
                mask[list(ids)] = True
                shape = [1] * tensor.dim()
                shape[dim] = -1
                tensor.mul_(mask.view(shape))
    return model


@torch.no_grad()
def scale_inputs_(model: nn.Module, trace: Trace, scales: dict[int, float]) -> None:
    """Multiply what every layer reads from a unit by the unit's scale, once per weight."""
    if not scales:
        return
    table = np.ones(len(trace.units))
    table[list(scales)] = list(scales.values())
    done: set[int] = set()
    for product in trace.products:
        weight = model.get_parameter(product.weight)
        if product.depthwise or id(weight) in done:
            continue
        done.add(id(weight))
        factors = torch.from_numpy(table[trace.units[product.inputs]]).to(weight)
        dims = trace.parameters[product.weight]
        place = 1 if dims[1] is not None and np.array_equal(dims[1], product.inputs) else 0
        shape = [1] * weight.dim()
        shape[place] = -1
        weight.mul_(factors.view(shape))
