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
    originals = {plain_name(name): module for name, module in teacher.named_modules()}
    wanted = set(layers_with_weights(model))
    found = {plain_name(name): module for name, module in model.named_modules() if module in wanted}
    if missing := found.keys() - originals.keys():
        raise ValueError(
            f"the teacher has no layer {min(missing)}: take the network as it was before pruning"
        )
    return [
        _layer_pair(name, module, originals[name], kept.get(f"{name}.weight".lstrip("."), {}))
        for name, module in found.items()
    ]


def _layer_pair(
    name: str, own: nn.Module, teacher: nn.Module, kept: Mapping[int, Sequence[int]]
) -> LayerPair:
    dim, ids = _kept_inputs(own, kept)
    width, before = _inputs(own), _inputs(teacher)
    if width != (before if ids is None else len(ids)):
        told = f"kept names {len(ids)}" if ids is not None else f"the teacher's {before}, and kept names none"
        raise ValueError(
            f"{name} has {width} inputs, {told}: give kept=plan.kept of the plan that leads from the teacher to this "
            "model (of several rounds: first.then(second))"
        )
    return LayerPair(own, teacher, dim, None if ids is None else torch.tensor(ids))


def _kept_inputs(layer: nn.Module, kept: Mapping[int, Sequence[int]]) -> tuple[int, Sequence[int] | None]:
    """The dimension of a layer's input that runs over channels, and which of them were kept, if not all."""
    if isinstance(layer, _CONVOLUTIONS):  # from the end: examples may come without a batch dimension
        return -1 - len(layer.kernel_size), kept.get(0 if layer.groups == layer.in_channels > 1 else 1)
    return -1, kept.get(0 if hasattr(layer, "nf") else 1)


def _inputs(layer: nn.Module) -> int | None:
    """How many channels or features a layer reads, where it says so."""
    names = ("in_channels", "in_features", "nx")
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)


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
            "removed, leave out torch.compile, which passes over hooks, or use hidden=0"
        )
    return distance
