"""Which entries of a model's parameters a mask keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor

from bisparse.export.dense import dense_layer, to_dense

__all__ = ["Masks", "dense_copy", "resolve_masks"]

Masks: TypeAlias = "Literal['zeros'] | Mapping[str, Tensor] | None"


def resolve_masks(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Masks by parameter name.

    Args:
        model: whose parameters are masked.
        masks: ``None`` = no masks; ``"zeros"`` = every parameter of two or more dimensions that has zeros keeps
            its other entries, which is what a pruned checkpoint means; or parameter (or module) names to tensors
            shaped like the parameters, non-zero = kept.

    Returns:
        Parameter name to boolean tensor.

    Raises:
        ValueError: an unknown name or a wrong shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if masks is None:
        return {}
    if isinstance(masks, str):
        if masks != "zeros":
            raise ValueError(f"masks={masks!r}: use 'zeros', a mapping from names to masks, or None")
        kept = {name: p.detach() != 0 for name, p in model.named_parameters() if p.dim() >= 2}
        return {name: mask for name, mask in kept.items() if not bool(mask.all())}
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    resolved = {}
    for given, mask in masks.items():
        name = given if given in parameters else f"{given}.weight".lstrip(".")
        if name not in parameters:
            known = ", ".join(list(parameters)[:5])
            raise ValueError(
                f"masks has an entry {given!r}, which is no parameter; the model has {known} ..."
            )
        if mask.shape != parameters[name].shape:
            raise ValueError(
                f"the mask of {name} has shape {tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
            )
        resolved[first[id(parameters[name])]] = mask.detach() != 0
    return resolved


def dense_copy(model: nn.Module, masks: Masks) -> tuple[nn.Module, Masks, int]:
    """Copy a model; sparse layers become dense ones whose zeros are masked.

    Args:
        model: any module.
        masks: those that were asked for.

    Returns:
        The copy; the masks, with those of sparse layers added where none were asked for; and how many layers were
        sparse.
    """
    model = getattr(model, "_orig_mod", model)
    sparse = [
        f"{path}.weight".lstrip(".")
        for path, module in model.named_modules()
        if dense_layer(module) is not None
    ]
    sparse += [name for name, p in model.named_parameters() if isinstance(p.data, SparseSemiStructuredTensor)]
    copied = to_dense(model)
    if not sparse or masks == "zeros":
        return copied, masks, len(sparse)
    weights = dict(copied.named_parameters())
    own = {name: weights[name].detach() != 0 for name in sparse if name in weights}
    return copied, own | dict(masks or {}), len(sparse)
