"""The average of several truly sparse models: all their connections, pruned back to as many as one has."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from bisparse.kernels.sparse_index import SparseIndex
from bisparse.nn.sparse_linear import SparseLinear

__all__ = ["averaged_model"]

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def averaged_model(models: Sequence[Model]) -> Model:
    """Average models that were trained apart, each with connections of its own.

    A connection's weight is the mean over all models, 0 where it does not exist. Every layer is then pruned to the
    number of connections that it has in the first model: of the positive and of the negative weights the same share,
    those closest to zero. All other parameters and floating buffers are averaged as they are. The average of equal
    models is one of them, but for rounding.

    Args:
        models: at least one; of the same structure, connections excepted. They are not changed.

    Returns:
        A copy of the first with the averages. An optimizer has to start anew.

    Raises:
        ValueError: no model, one with other layers or shapes, or weights that are not a number.

    Cost: a sort of all connections; no dense tensor.

    Source: S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021, WASAP-SGD,
    second phase.
    """
    if not models:
        raise ValueError("the average of no models is undefined: give at least one")
    average = copy.deepcopy(models[0])
    others = [_named(model) for model in models]
    names = [found.keys() for found in others]
    if any(found != names[0] for found in names):
        raise ValueError("the models have different layers: average models of one structure")
    for name, module in _named(average).items():
        if isinstance(module, SparseLinear):
            _average_layer_(module, [_sparse(found[name], module) for found in others])
        _average_plain_(module, [found[name] for found in others])
    return average


def _named(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules())


def _sparse(module: nn.Module, like: SparseLinear) -> SparseLinear:
    if not isinstance(module, SparseLinear) or module.index.shape != like.index.shape:
        raise ValueError(f"{module} does not fit {like}: average models of one structure")
    return module


def _average_plain_(module: nn.Module, others: Sequence[nn.Module]) -> None:
    """A module's own parameters and floating buffers, but for the values of sparse layers."""
    own = [*module._parameters.items(), *module._buffers.items()]
    for name, tensor in own:
        sparse = isinstance(module, SparseLinear) and name == "values"
        if tensor is not None and tensor.is_floating_point() and not sparse:
            found = [each for other in others if (each := getattr(other, name, None)) is not None]
            if len(found) < len(others) or any(each.shape != tensor.shape for each in found):
                raise ValueError(f"{name} of {module} differs in shape: average models of one structure")
            tensor.copy_(torch.stack(found).mean(0))


def _average_layer_(layer: SparseLinear, layers: Sequence[SparseLinear]) -> None:
    keys, place = torch.cat([each.index.keys() for each in layers]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    values = torch.zeros(keys.shape, dtype=layer.values.dtype, device=layer.values.device)
    values.index_add_(0, place, torch.cat([each.values for each in layers]) / len(layers))
    if bool(values.isnan().any()):
        raise ValueError(
            f"the average of {layer} holds weights that are not a number: did the training diverge?"
        )
    keep = _largest_of_each_sign(values, layer.nnz)
    layer.set_index_(SparseIndex.from_keys(keys[keep], layer.index.shape))
    layer.set_values_(values[keep])


def _largest_of_each_sign(values: Tensor, count: int) -> Tensor:
    """So many places, increasing: the same share of either sign, as near as whole numbers allow."""
    signs = [side.nonzero().squeeze(1) for side in (values >= 0, values < 0)]
    positive = round(count * len(signs[0]) / max(len(values), 1))
    chosen = [
        places[values[places].abs().topk(wanted).indices]
        for places, wanted in zip(signs, (positive, count - positive), strict=True)
    ]
    return torch.cat(chosen).sort().values
