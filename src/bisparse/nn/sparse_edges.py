"""Change which connections a sparse layer has, and carry what an optimizer knows about those that stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bisparse.kernels.sparse_index import SparseIndex, sorted_distinct
from bisparse.nn.fresh_state import fresh_state
from bisparse.nn.sparse_linear import SparseLinear

__all__ = ["replace_edges_"]


@torch.no_grad()
def replace_edges_(
    layer: SparseLinear,
    keep: Tensor,
    grow_keys: Tensor | None = None,
    grow_values: Tensor | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Drop connections and add others.

    What stays keeps its value, its gradient and every state of the optimizer that has one number per connection
    (momentum, Adam's moments, ...); new connections start there as at the first step, mostly with zeros. LBFGS, whose
    state runs over all parameters in a row, starts anew. ``layer.values`` stays the same parameter, and where the
    number of connections does not change it keeps its memory, too. Cost: two sorts of the non-zeros; no dense tensor.

    Args:
        layer: is changed.
        keep: (nnz) boolean, True = stays.
        grow_keys: int64, ``row * in_features + column`` of new connections, in any order.
        grow_values: their values.
        optimizer: that trains ``layer.values``; needed as soon as it has taken a step.

    Raises:
        ValueError: wrong shapes, keys that are out of range, repeated or kept already, or an optimizer that does not
            hold the parameter.
    """
    _check(layer, keep, grow_keys, grow_values, optimizer)
    parameter, old_shape = layer.values, layer.values.shape
    keys, source = _merged(layer.index.keys(), keep, grow_keys)
    layer.set_index_(SparseIndex.from_keys(keys, (layer.out_features, layer.in_features)))
    del keys  # the largest of all
    values, grad = _carried(parameter, source), parameter.grad
    if grow_keys is not None and grow_values is not None:
        values[source < 0] = grow_values[grow_keys.argsort()].to(values)
    if optimizer is not None:
        _carry_states_(optimizer, parameter, source, old_shape)
    parameter.grad = None
    if values.shape == old_shape:
        parameter.copy_(values)  # in place: a backward pass that still waits for the old values is told
    else:
        layer.set_values_(values)
    parameter.grad = None if grad is None else _carried(grad, source)


def _merged(keys: Tensor, keep: Tensor, grow_keys: Tensor | None) -> tuple[Tensor, Tensor]:
    """The new keys, sorted, and where each one was before: its old place, or -1."""
    kept = keep.nonzero().squeeze(1)
    if grow_keys is None or grow_keys.numel() == 0:
        return keys[kept], kept
    merged, order = torch.cat([keys[kept], grow_keys.to(keys.device)]).sort()
    if not sorted_distinct(merged):
        raise ValueError("a new connection is named twice, or exists already")
    return merged, torch.cat([kept, kept.new_full((len(grow_keys),), -1)])[order]


def _carry_states_(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, source: Tensor, old_shape: torch.Size
) -> None:
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.state.clear()
        optimizer._numel_cache = None
    group = next(each for each in optimizer.param_groups if any(p is parameter for p in each["params"]))
    states = optimizer.state.get(parameter, {})
    for name, state in states.items():
        if isinstance(state, Tensor) and state.shape == old_shape:
            carried = _carried(state, source, fresh_state(name, group))
            states[name] = state.copy_(carried) if carried.shape == old_shape else carried


def _carried(old: Tensor, source: Tensor, fresh: float = 0.0) -> Tensor:
    """Entries of survivors at their new places, ``fresh`` for new connections (source -1)."""
    stays = source >= 0
    new = torch.full(source.shape, fresh, dtype=old.dtype, device=old.device)
    new[stays] = old[source[stays]]
    return new


def _check(
    layer: SparseLinear,
    keep: Tensor,
    grow_keys: Tensor | None,
    grow_values: Tensor | None,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    if keep.dtype != torch.bool or keep.shape != layer.values.shape:
        raise ValueError(f"keep must be {layer.nnz} booleans, got {tuple(keep.shape)} of {keep.dtype}")
    if (grow_keys is None) != (grow_values is None):
        raise ValueError("new connections need both grow_keys and grow_values")
    if grow_keys is not None and grow_values is not None:
        _check_growth(grow_keys, grow_values)
    if optimizer is not None:
        held = (p for group in optimizer.param_groups for p in group["params"])
        if not any(p is layer.values for p in held):
            raise ValueError("the optimizer does not train this layer's values: pass the one that does")


def _check_growth(keys: Tensor, values: Tensor) -> None:
    if keys.dtype != torch.int64 or keys.dim() != 1 or keys.shape != values.shape:
        raise ValueError(
            f"grow_keys {tuple(keys.shape)} of {keys.dtype} and grow_values {tuple(values.shape)}: one int64 key "
            "and one value for each new connection"
        )
