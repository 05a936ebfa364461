"""The masked layers of a model: those for which there may be a sparse one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bisparse.nn.find_pattern import find_pattern
from bisparse.pattern import NM
from bisparse.weights import Weight, as_rows, find_weights

__all__ = ["MaskedLayer", "masked_layers"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True, eq=False)
class MaskedLayer:
    """A layer whose weight obeys a pattern.

    Attributes:
        weight: of the layer.
        pattern: along its inputs.
        mask: what is kept, zeros included: (outputs, inputs), of a convolution shaped like the weight; ``None`` = the
            non-zeros.
    """

    weight: Weight
    pattern: NM
    mask: Tensor | None = None


def masked_layers(
    model: nn.Module, masks: Mapping[str, Tensor] | None = None
) -> tuple[list[MaskedLayer], list[str]]:
    """Linear layers and convolutions that obey a pattern, and what is said about the others.

    Args:
        model: with zeros where it is masked.
        masks: by parameter name; where there is none, the non-zeros count.

    Raises:
        ValueError: a mask of no weight, of another shape, or that drops what is not zero.
    """
    found = list(find_weights(model, ignore=[]))
    given = {} if masks is None else dict(masks)
    if unknown := given.keys() - {weight.name for weight in found}:
        raise ValueError(f"masks of weights that the model has not: {sorted(unknown)[:3]}")
    masked: list[MaskedLayer] = []
    reasons: dict[str, int] = {}
    for weight in found:
        mask = given.get(weight.name)
        if mask is not None:
            _check(weight, mask)
        if not (reason := _unfit(weight)):
            kept = None if mask is None else as_rows(mask, weight.layout)[0]
            matrix = as_rows(weight.parameter.detach(), weight.layout)[0]
            try:
                pattern = find_pattern(matrix, kept)
            except ValueError:
                reason = "not N:M sparse"
            else:
                masked.append(
                    MaskedLayer(weight, pattern, mask if isinstance(weight.module, nn.Conv2d) else kept)
                )
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    notes = [f"left as they are: {count} ({reason})" for reason, count in reasons.items()]
    return masked, notes


def _check(weight: Weight, mask: Tensor) -> None:
    parameter = weight.parameter.detach()
    if mask.dtype != torch.bool or mask.shape != parameter.shape:
        raise ValueError(
            f"{weight.name}: a mask is boolean and shaped like the weight, {tuple(parameter.shape)}; got "
            f"{tuple(mask.shape)} of {mask.dtype}"
        )
    if bool((parameter != 0).logical_and_(~mask.to(parameter.device)).any()):
        raise ValueError(
            f"{weight.name}: weights that the mask drops are not zero: give the masks that the model obeys now"
        )


def _unfit(weight: Weight) -> str:
    """Why no sparse layer takes the place of the module of a weight."""
    two_dimensional = isinstance(weight.module, nn.Conv2d) and weight.layout.kind == "conv"
    if (
        weight.layout.kind not in ("linear", "transposed") and not two_dimensional
    ) or weight.layout.parts > 1:
        return f"{weight.layout.kind}: no sparse product"
    if weight.parameter_name != "weight" or isinstance(weight.module, (nn.Embedding, nn.EmbeddingBag)):
        return f"{type(weight.module).__name__}: no sparse product"
    if not weight.module_name:
        return "the model itself: put it into nn.Sequential"
    if any(getattr(weight.module, hooks) for hooks in _HOOKS):
        return "it has hooks, which a sparse layer would not call: remove them first"
    return f"tied to {weight.aliases[0]}" if weight.aliases else ""
