"""Hidden states: what goes into the layers of a network while it runs, and how far two networks differ there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from bisparse.compress.distance import relative_distance
from bisparse.compress.outputs import valid_outputs

__all__ = ["HiddenStates", "hidden_distance", "layers_with_weights", "run_recorded"]

HiddenStates: TypeAlias = "dict[nn.Module, list[Tensor]]"
"""First inputs of modules, one for each of their calls, in order."""


def layers_with_weights(model: nn.Module) -> list[nn.Module]:
    """Modules that themselves own a weight of two or more dimensions: Linear, convolutions, attention ...

    A weight under ``torch.nn.utils.parametrize`` is its layer's.
    """
    return [
        module
        for module in model.modules()
        if not isinstance(module, ParametrizationList)
        and any(parameter.dim() > 1 for parameter in _own_parameters(module))
    ]


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    own = list(module.parameters(recurse=False))
    if is_parametrized(module):
        for parametrization in module.parametrizations.values():  # type: ignore[operator]
            own += parametrization.parameters(recurse=False)
    return own


def run_recorded(modules: list[nn.Module], run: Callable[[], Any]) -> tuple[Any, HiddenStates]:
    """Run something and note the first floating-point input of every call of the given modules.

    Returns:
        What ``run`` returned, and the inputs, still attached to the graph where gradients are on.
    """
    seen: HiddenStates = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if first is not None and first.is_floating_point():
            seen.setdefault(module, []).append(first)

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        return run(), seen
    finally:
        for handle in handles:
            handle.remove()


def hidden_distance(
    found: Mapping[nn.Module, list[Tensor]], goal: Mapping[nn.Module, list[Tensor]], valid: Tensor | None
) -> Tensor | None:
    """Mean over all layers of |found - goal|² / |goal|².

    Layers whose inputs are the very same tensor (those fed by the network's input) and calls whose shapes
    differ (a router decided otherwise) do not count.

    Args:
        found: hidden states of one network, for example under training.
        goal: those of the other.
        valid: (batch, tokens) boolean; padding tokens are left out.

    Returns:
        A scalar in float32; ``None`` where nothing can be compared.
    """
    errors = [
        relative_distance(valid_outputs(one, valid).float(), valid_outputs(other, valid).float())
        for one, other in _pairs(found, goal)
    ]
    return torch.stack(errors).mean() if errors else None


def _pairs(
    found: Mapping[nn.Module, list[Tensor]], goal: Mapping[nn.Module, list[Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for module, tensors in found.items():
        for one, other in zip(tensors, goal.get(module, []), strict=False):
            if one is not other and one.shape == other.shape:
                yield one, other
