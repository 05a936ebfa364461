"""Layers of a smaller network beside those of its teacher: what both receive, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bisparse.compress.hidden import HiddenStates, hidden_distance, layers_with_weights
from bisparse.train.attaching import plain_name

__all__ = ["KeptIndices", "LayerPair", "hint_distance", "layer_pairs"]

KeptIndices: TypeAlias = "Mapping[str, Mapping[int, Sequence[int]]]"
"""Name of a parameter to dimension to the indices that were kept there: ``FilterPlan.kept``."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True, eq=False)
class LayerPair:
    """A layer and the one that it was before filters were removed.

    Attributes:
        own: of the smaller network.
        teacher: of the larger one.
        dim: of the teacher's input that lost channels.
        channels: those that are left, int64; ``None`` = all.
    """

    own: nn.Module
    teacher: nn.Module
    dim: int = -1
    channels: Tensor | None = None

    def goal(self, state: Tensor) -> Tensor:
        """The part of the teacher's input that the smaller network has too."""
        if self.channels is None:
            return state
        return state.index_select(self.dim, self.channels.to(state.device))


def layer_pairs(model: nn.Module, teacher: nn.Module, kept: KeptIndices) -> list[LayerPair]:
    """Every layer with weights beside the teacher's of the same name, whatever wraps the model.

    Raises:
        ValueError: a layer that the teacher lacks, or with other inputs than ``kept`` says.
    """
    originals = {_module_name(name): module for name, module in teacher.named_modules()}
    wanted = set(layers_with_weights(model))
    found = {_module_name(name): module for name, module in model.named_modules() if module in wanted}
    if missing := found.keys() - originals.keys():
        raise ValueError(
            f"the teacher has no layer {min(missing)}: take the network as it was before pruning"
        )
    left = {plain_name(name): dims for name, dims in kept.items()}
    return [
        _layer_pair(name, module, originals[name], left.get(f"{name}.weight".lstrip("."), {}))
        for name, module in found.items()
    ]


def _module_name(name: str) -> str:
    """A module's name without wrappers, which may be the last of its parts too."""
    return plain_name(f"{name}.").removesuffix(".")


def _layer_pair(
    name: str, own: nn.Module, teacher: nn.Module, kept: Mapping[int, Sequence[int]]
) -> LayerPair:
    width, before = _inputs(own), _inputs(teacher)
    if width is None or before is None:  # which dimension of its weight meets the input, only its code knows
        return LayerPair(own, teacher)
    ids = _kept_inputs(teacher, kept)
    if width != (before if ids is None else len(ids)) or (ids and max(ids) >= before):
        told = "none" if ids is None else f"{len(ids)}, up to number {max(ids, default=0)}"
        raise ValueError(
            f"{name} has {width} inputs, the teacher's {before}, and kept names {told}: give kept=plan.kept of the "
            "plan that leads from the teacher to this model (of several rounds: first.then(second))"
        )
    # From the end: examples may come without a batch dimension.
    dim = -1 - len(teacher.kernel_size) if isinstance(teacher, _CONVOLUTIONS) else -1
    return LayerPair(own, teacher, dim, None if ids is None else torch.tensor(ids))


def _kept_inputs(layer: nn.Module, kept: Mapping[int, Sequence[int]]) -> Sequence[int] | None:
    """Which channels of the teacher's input are left, by what is left of its weight; ``None`` = all."""
    if not isinstance(layer, _CONVOLUTIONS) or layer.groups == 1:
        return kept.get(0 if hasattr(layer, "nf") else 1)
    size = layer.in_channels // layer.groups
    if size == 1 and 0 in kept:  # depthwise: a channel goes with all filters that read it
        filters = layer.out_channels // layer.groups
        return sorted({row // filters for row in kept[0]})
    if 1 in kept:  # the same places of every group
        return [first + place for first in range(0, layer.in_channels, size) for place in kept[1]]
    return None


def _inputs(layer: nn.Module) -> int | None:
    """How many channels or features a layer of a known kind reads."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return len(layer.weight) if hasattr(layer, "nf") else None  # type: ignore[arg-type]  # transformers' Conv1D


def hint_distance(pairs: Sequence[LayerPair], found: HiddenStates, goal: HiddenStates) -> Tensor:
    """Mean over the layers of |input - teacher's input|² / |teacher's input|², on the channels of both.

    Args:
        pairs: as :func:`layer_pairs` found them.
        found: inputs of the smaller network's layers, with gradient.
        goal: inputs of the teacher's.

    Raises:
        ValueError: there is nothing to compare.
    """
    goals = {pair.own: [pair.goal(state) for state in goal.get(pair.teacher, [])] for pair in pairs}
    distance = hidden_distance(found, goals, None)
    if distance is None:
        raise ValueError(
            "no layer receives what a layer of the teacher receives: give kept=plan.kept of the filters that were "
            "removed, leave out torch.compile, which passes over hooks, or use hidden=0 (layers that read the "
            "network's input do not count, nor truly sparse ones, nor your own kinds where they lost inputs)"
        )
    return distance
