"""Weights that make up for removed channels, fitted to the outputs of the whole network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.compress.prune import prune_
from bisparse.filters.plan import FilterPlan
from bisparse.filters.trace import Trace
from bisparse.pattern import Pattern, Unstructured
from bisparse.weights import Selector

__all__ = ["refit_"]


def refit_(
    model: nn.Module, trace: Trace, plan: FilterPlan, calls: Sequence[Call], method: str, *, seed: int = 0
) -> None:
    """Zero the columns of removed channels, and fit the others, layer by layer, by the machinery of ``prune_``.

    Each layer's target is its output in the whole network (where it is added to another tensor, the sum), its input
    that of the network pruned so far. The model keeps its size; removing what the plan removes then changes nothing.

    Args:
        model: changed in place.
        trace: of the model.
        plan: what is to be removed.
        calls: calibration data.
        method: ``"least_squares"``, ``"bias"``, each with ``"+distill"`` if wanted.
        seed: of the last stage.

    Raises:
        ValueError: an unknown method.
    """
    masks = _column_masks(model, trace, plan)
    if not masks:
        return
    patterns: dict[Selector, str | Pattern] = {
        name: Unstructured(1.0 - float(mask.double().mean())) for name, mask in masks.items()
    }
    names = list(masks)
    scores = {name: mask.float() for name, mask in masks.items()}
    prune_(
        model,
        patterns,
        targets=names,
        ignore=[],
        scores=scores,
        reconstruct=method,
        calibration=list(calls),
        seed=seed,
    )


def _column_masks(model: nn.Module, trace: Trace, plan: FilterPlan) -> dict[str, Tensor]:
    """For every weight that reads removed channels: True where the channel stays."""
    masks: dict[str, Tensor] = {}
    for product in trace.products:
        dims, kept = trace.parameters[product.weight], plan.kept.get(product.weight, {})
        place = 1 if dims[1] is not None and np.array_equal(dims[1], product.inputs) else 0
        if place not in kept or product.depthwise or not kept[place]:
            continue
        weight = model.get_parameter(product.weight)
        stays = torch.zeros(weight.shape[place], dtype=torch.bool, device=weight.device)
        stays[list(kept[place])] = True
        shape = [1] * weight.dim()
        shape[place] = -1
        masks[product.weight] = stays.view(shape).expand_as(weight).clone()
    return masks
