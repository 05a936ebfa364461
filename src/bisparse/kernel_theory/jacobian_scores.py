"""Scores from the network's derivatives: what each weight does to the outputs."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY, column_squares
from bisparse.kernel_theory.network import Network, Outputs, prepare
from bisparse.kernel_theory.targets import as_targets
from bisparse.weights import find_weights

__all__ = ["ScoreKind", "jacobian_scores"]

ScoreKind: TypeAlias = Literal["kernel", "saliency", "labels"]


def jacobian_scores(
    model: nn.Module,
    X: Tensor,
    y: Tensor | None = None,
    *,
    kind: ScoreKind = "kernel",
    outputs: Outputs = "trace",
    memory: int = DEFAULT_MEMORY,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Scores by weight name, shaped like the weights, for ``prune_(scores=...)`` and :func:`bisparse.solve_mask`.

    With J_i the derivative of all outputs on all examples by weight i:

    - ``"kernel"``: |J_i|². Their sum is the trace of the gradient kernel, so the exact mask keeps the largest trace
      that its pattern allows (at the dense weights: masking moves the derivatives of later layers).
    - ``"saliency"``: w_i² |J_i|², to first order how much the outputs change when the weight goes.
    - ``"labels"``: (J_iᵀ y)², how fast the weight alone would fit the targets: the part of yᵀ K_M y that it holds.

    Args:
        model: any module that maps (n, ...) to (n, ...) row by row; left as it is.
        X: (n, ...) examples.
        y: (n,) or (n, C) targets or class numbers; only ``"labels"`` needs them.
        kind: see above.
        outputs: of the network that count, as in :func:`gradient_kernel`; pairs do not matter.
        memory: bytes that derivatives may take.
        dtype: of the computation; ``None`` = the model's.

    Returns:
        Scores of every weight that :func:`bisparse.weights.find_weights` finds with ``ignore=[]``, tied ones under
        their first name; in the weights' dtype.

    Raises:
        ValueError: an unknown kind, ``"labels"`` without targets, or what ``prepare`` refuses.

    Cost: one forward pass and one backward pass per output and example block; for ``"labels"`` a single one.
    Source: Dou and Liang 2020 for the kernel; Molchanov et al. 2017 for the saliency.
    """
    if kind not in ("kernel", "saliency", "labels"):
        raise ValueError(f"kind={kind!r}: use 'kernel', 'saliency' or 'labels'")
    network = prepare(model, X, dtype=dtype)
    if kind == "labels":
        if y is None:
            raise ValueError("kind='labels' needs targets: pass y")
        squares = _label_products(network, X, y)
    else:
        squares = column_squares(network, X, outputs, memory)
    weights = {weight.name: weight.parameter for weight in find_weights(model, ignore=[])}
    scores = {}
    for name, parameter in weights.items():
        if name in squares:
            factor = parameter.detach().square() if kind == "saliency" else 1.0
            scores[name] = (squares[name].to(parameter.dtype) * factor).clamp_min(0.0)
    return scores


def _label_products(network: Network, X: Tensor, y: Tensor) -> dict[str, Tensor]:
    values = network.parameters
    total = {name: torch.zeros_like(p) for name, p in values.items()}
    inputs = network.inputs(X)
    for first in range(0, len(inputs), 256):
        with torch.enable_grad():
            result = network(inputs[first : first + 256])
            product = (result * as_targets(y[first : first + 256], result)).sum()
        grads = torch.autograd.grad(product, list(values.values()), allow_unused=True)
        for name, grad in zip(values, grads, strict=True):
            if grad is not None:
                total[name] += grad
    return {name: value.square() for name, value in total.items()}
