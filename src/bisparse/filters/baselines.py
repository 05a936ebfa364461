"""What units are worth by other measures: norms of filters, a first-order expansion of the loss, chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bisparse.filters.families import Family
from bisparse.filters.trace import Trace

__all__ = ["FilterScores", "norm_scores", "random_scores", "taylor_scores"]

FilterScores: TypeAlias = Literal["pfp", "obs", "l1", "l2", "taylor", "random"]
Values: TypeAlias = "list[npt.NDArray[np.float64]]"


def _summed(trace: Trace, families: Sequence[Family], values: dict[str, Tensor]) -> Values:
    """Sum per-output values (O,) of all written weights over the units of every family."""
    table = np.zeros(len(trace.units))
    for product in {p.weight: p for family in families for p in family.written}.values():
        np.add.at(table, trace.units[product.outputs], values[product.weight].double().cpu().numpy())
    return [table[family.units] for family in families]


def _rows(trace: Trace, name: str, tensor: Tensor) -> Tensor:
    """(O, rest) view of a weight: outputs first."""
    product = next(p for p in trace.products if p.weight == name)
    dims = trace.parameters[name]
    first = dims[0] is not None and np.array_equal(dims[0], product.outputs)
    return (tensor if first else tensor.transpose(0, 1)).flatten(1)


def norm_scores(model: nn.Module, trace: Trace, families: Sequence[Family], order: int) -> Values:
    """Norms of filters (1 or 2): of all weights that write a unit together.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017 (order 1); He et al., "Soft Filter Pruning", 2018.
    """
    names = {p.weight for family in families for p in family.written}
    powers = {
        name: _rows(trace, name, model.get_parameter(name).detach()).abs().pow(order).sum(1) for name in names
    }
    return [total ** (1 / order) for total in _summed(trace, families, powers)]


def random_scores(families: Sequence[Family], seed: int) -> Values:
    """Chance."""
    generator = np.random.default_rng(seed)
    return [generator.random(len(family)) for family in families]


def taylor_scores(
    model: nn.Module,
    trace: Trace,
    families: Sequence[Family],
    batches: Iterable[object],
    loss: Callable[[nn.Module, object], Tensor],
) -> Values:
    """Squared first-order change of the loss if a filter's weights vanished: (sum of gradient * weight)^2.

    Args:
        model: its gradients are left as they were.
        trace: of the model.
        families: what is scored.
        batches: labelled data.
        loss: ``loss(model, batch)``; weights that are frozen count like the others.

    Raises:
        ValueError: no batch, or a loss that fails, or is not one number that depends on the weights.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.
    """
    names = sorted({p.weight for family in families for p in family.written})
    weights = [model.get_parameter(name) for name in names]
    totals = {name: torch.zeros(0) for name in names}
    modes = {module: module.training for module in model.modules()}
    learns = [weight.requires_grad for weight in weights]
    model.eval()
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for batch in batches:
            with torch.enable_grad():
                value = _loss_of(model, batch, loss)
                gradients = torch.autograd.grad(value, weights, materialize_grads=True)
            for name, weight, gradient in zip(names, weights, gradients, strict=True):
                change = _rows(trace, name, gradient * weight.detach()).sum(1).square()
                totals[name] = totals[name] + change if len(totals[name]) else change
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, flag in zip(weights, learns, strict=True):
            weight.requires_grad_(flag)
    if any(not len(total) for total in totals.values()):
        raise ValueError("Taylor scores need at least one labelled batch")
    return _summed(trace, families, totals)


def _loss_of(model: nn.Module, batch: object, loss: Callable[[nn.Module, object], Tensor]) -> Tensor:
    """The loss of a batch, if it is one."""
    try:
        value: Any = loss(model, batch)
    except (RuntimeError, TypeError, LookupError, ValueError) as error:
        raise ValueError(
            f"loss= fails on a calibration batch: {error}; scores='taylor' needs batches with labels, as loss= takes "
            "them"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"loss= must return one number with a gradient, as a tensor of shape (); got {shape}"
        )
    return value
