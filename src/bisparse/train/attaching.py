"""From a model and an optimizer to the weights that both share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bisparse.masks.result import Duals
from bisparse.pattern import TransposableNM
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.bits import pack, unpack
from bisparse.train.measures.record import Record
from bisparse.train.sharding import Sharding
from bisparse.weights import Weight

__all__ = ["check_gradients", "group_weights", "held_weights", "plain_name", "rebind_"]

_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def plain_name(name: str) -> str:
    """A parameter's name without the wrappers of DDP, ``torch.compile`` and activation checkpointing."""
    return _WRAPPERS.sub("", name)


def check_gradients(weights: Sequence[Weight]) -> None:
    """Refuse weights whose gradients no rule can work on.

    Raises:
        ValueError: an embedding with sparse gradients.
    """
    for weight in weights:
        if getattr(weight.module, "sparse", False):
            raise ValueError(
                f"{weight.name}: an embedding with sparse=True gives sparse gradients, which rules cannot mask; use "
                "sparse=False or leave it out with ignore="
            )


def held_weights(
    weights: Sequence[MaskedWeight], optimizer: Any, first: int = 0
) -> dict[int, list[MaskedWeight]]:
    """Weights that an optimizer holds, by the index of their parameter group, from group ``first`` on."""
    own = {id(weight.parameter): weight for weight in weights}
    groups = {
        index: [own[id(p)] for p in group["params"] if id(p) in own]
        for index, group in enumerate(optimizer.param_groups[first:], first)
    }
    return {index: members for index, members in groups.items() if members}


def group_weights(
    weights: Sequence[MaskedWeight], optimizer: Any, others: Sequence[Any]
) -> dict[int, list[MaskedWeight]]:
    """Weights that an optimizer holds, by the index of their parameter group.

    Raises:
        ValueError: it holds none of them, or one of ``others`` holds one of them too.
    """
    taken = {id(p) for other in others for group in other.param_groups for p in group["params"]}
    found = held_weights([w for w in weights if id(w.parameter) not in taken], optimizer)
    if not found:
        raise ValueError(
            f"{type(optimizer).__name__} holds none of the {len(weights)} prepared weights"
            f"{' that have no optimizer yet' if others else ''}: build it from the same model's parameters, after "
            "fully_shard where that is used"
        )
    return found


@torch.no_grad()
def rebind_(weight: MaskedWeight, record: Record) -> None:
    """Follow a parameter that was replaced since ``prepare``, as ``fully_shard`` does.

    Raises:
        ValueError: the new parameter has another shape, or is divided in another way.
    """
    parameter = getattr(weight.module, weight.parameter_name)
    if parameter is weight.parameter:
        return
    if not isinstance(parameter, nn.Parameter) or tuple(parameter.shape) != weight.shape:
        raise ValueError(
            f"{weight.name} was replaced by {type(parameter).__name__} of shape {tuple(parameter.shape)}, it had "
            f"{weight.shape}: prepare after the change"
        )
    sharding = Sharding.of(parameter)
    if weight.sharding not in (None, sharding):
        raise ValueError(
            f"{weight.name} is now divided as {sharding and sharding.placements}, it was divided as "
            f"{weight.sharding and weight.sharding.placements}: prepare after the change"
        )
    weight.parameter, weight.checked = parameter, False
    if sharding is None or weight.sharding is not None:
        return
    weight.duals = _divided_duals(weight, sharding)
    for masks in (record.first, record.opening):
        if weight.name in masks:
            masks[weight.name] = pack(sharding.scatter(unpack(masks[weight.name], weight.shape)))
    weight.mask, weight.dropped = sharding.scatter(weight.mask), sharding.scatter(weight.dropped)
    weight.hidden = sharding.scatter(weight.hidden)
    weight.average = None if weight.average is None else sharding.scatter(weight.average)
    if weight.fired is not None:
        weight.fired = pack(sharding.scatter(unpack(weight.fired, weight.shape)))
    weight.extra = {
        key: sharding.scatter(tensor) if tensor.shape == weight.shape else tensor
        for key, tensor in weight.extra.items()
    }
    weight.sharding = sharding


def _divided_duals(weight: MaskedWeight, sharding: Sharding) -> Duals | None:
    """This process's part of the potentials; all of them where the weight will be gathered."""
    if weight.duals is None or not isinstance(weight.pattern, TransposableNM):
        return None
    parts = sharding.of_duals(weight.layout, weight.pattern)
    if parts is None:
        return weight.duals
    return Duals(parts[0].scatter(weight.duals.rows), parts[1].scatter(weight.duals.columns))
