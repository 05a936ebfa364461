"""Sparse layers back to ordinary ones: zeros in a dense tensor are what every other runtime accepts."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor

__all__ = ["dense_layer", "dense_state_dict", "to_dense"]

Model = TypeVar("Model", bound=nn.Module)
_WAYS_BACK = ("to_linear", "to_conv", "to_dense")


def dense_layer(module: nn.Module) -> nn.Module | None:
    """The ordinary layer that computes the same as a layer of ``bisparse.nn``; ``None`` for any other module."""
    if not type(module).__module__.startswith("bisparse."):
        return None
    for name in _WAYS_BACK:
        method = getattr(module, name, None)
        if callable(method):
            dense: nn.Module = method()
            return dense
    return None


def to_dense(model: Model) -> Model:
    """A copy of a model in which every sparse layer is an ordinary dense one with zeros.

    Layers of ``bisparse.nn`` become what they were made from; PyTorch's semi-structured tensors become plain
    ones. All other runtimes and formats accept the result: ``torch.onnx.export``, ``torch.save``,
    ``save_pretrained``. Memory: one dense model besides the given one.

    Args:
        model: any model; it is not changed.

    Returns:
        The copy, with the same values: the zeros stay zeros.
    """
    # Filled in advance, deepcopy puts the dense layers wherever the sparse ones are referred to.
    memo: dict[int, Any] = {}
    for module in model.modules():
        if (dense := dense_layer(module)) is not None:
            own = {id(parameter) for parameter in module.parameters()}
            shares = any(id(parameter) in own for parameter in dense.parameters())
            memo[id(module)] = copy.deepcopy(dense, memo) if shares else dense
        for parameter in module._parameters.values():
            if parameter is not None and isinstance(parameter.data, SparseSemiStructuredTensor):
                memo[id(parameter)] = nn.Parameter(
                    _plain(parameter.data), requires_grad=parameter.requires_grad
                )
    found = memo.get(id(model))
    copied: Model = copy.deepcopy(model, memo) if found is None else found
    return copied


def dense_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that :func:`to_dense` of the model would have, without a copy of what is dense already.

    Returns:
        Name to tensor; tensors of dense layers are the model's own.
    """
    state: dict[str, Any] = dict(model.state_dict())
    for name, module in model.named_modules(remove_duplicate=False):
        if (dense := dense_layer(module)) is not None:
            state = _replaced(state, f"{name}." if name else "", dense.state_dict())
    return {name: _plain(tensor) for name, tensor in state.items()}


def _replaced(state: dict[str, Any], prefix: str, own: dict[str, Any]) -> dict[str, Any]:
    """The state with all entries of one layer replaced by others, in the place of the first."""
    replaced: dict[str, Any] = {}
    for key, value in state.items():
        if key.startswith(prefix):
            replaced |= {prefix + name: tensor for name, tensor in own.items()}
        else:
            replaced[key] = value
    return replaced


def _plain(tensor: Any) -> Any:
    return _unpacked(tensor) if isinstance(tensor, SparseSemiStructuredTensor) else tensor


def _unpacked(tensor: SparseSemiStructuredTensor) -> Tensor:
    plain: Tensor = tensor.to_dense()  # type: ignore[no-untyped-call]
    return plain
