"""One training step of a sparse layer, as five libraries do it: forward, all gradients, SGD with momentum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bisparse.nn import SparseLinear

__all__ = ["CONTENDERS", "Step", "build_step"]

RATE, MOMENTUM = 0.01, 0.9
_CHUNK = 2**22
Step = Callable[[], object]
Make = Callable[[], SparseLinear]


def build_step(contender: str, rows: int, columns: int, density: float, batch: int) -> Step:
    """Make a layer and return its training step on fixed inputs; equal arguments have equal connections.

    Args:
        contender: one of :data:`CONTENDERS`.
        rows: outputs.
        columns: inputs.
        density: share of the weights that exist.
        batch: examples.
    """
    torch.manual_seed(0)
    x, grad = torch.randn(batch, columns, requires_grad=True), torch.randn(batch, rows)
    return CONTENDERS[contender](partial(SparseLinear, columns, rows, bias=False, density=density), x, grad)


def _module_step(module: nn.Module, x: Tensor, grad: Tensor, mask: Tensor | None = None) -> Step:
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        module(x).backward(grad)
        if mask is not None:
            for parameter in module.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(mask)
        optimizer.step()

    return step


def _sparse(make: Make, x: Tensor, grad: Tensor) -> Step:
    return _module_step(make(), x, grad)


def _dense(make: Make, x: Tensor, grad: Tensor) -> Step:  # noqa: ARG001
    return _module_step(nn.Linear(x.shape[1], grad.shape[1], bias=False), x, grad)


def _masked(make: Make, x: Tensor, grad: Tensor) -> Step:
    """Zeros in a dense weight, and a mask on its gradient."""
    linear = make().to_linear()
    return _module_step(linear, x, grad, linear.weight.detach() != 0)


def _torch_csr(make: Make, x: Tensor, grad: Tensor) -> Step:
    """PyTorch's CSR tensor and its own autograd, whose gradient of the weight is dense; SGD on the values."""
    layer = make()
    size = layer.out_features, layer.in_features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSR is announced as beta
        weight = torch.sparse_csr_tensor(layer.crow, layer.col, layer.values.detach(), size)
    weight.requires_grad_(True)
    places = layer.index.rows(), layer.col.long()
    momentum = torch.zeros_like(layer.values)

    def step() -> None:
        x.grad = weight.grad = None
        (weight @ x.t()).t().backward(grad)  # type: ignore[no-untyped-call]
        dense: Tensor = weight.grad  # type: ignore[assignment]
        momentum.mul_(MOMENTUM).add_(dense[places])
        weight.detach().values().sub_(momentum, alpha=RATE)

    return step


def _scipy(make: Make, x: Tensor, grad: Tensor) -> Step:
    """SciPy's CSR products; SciPy has none that is sampled, so entries of the gradient are gathered and summed."""
    from scipy.sparse import csr_matrix

    layer = make()
    parts = (layer.values.detach().numpy(), layer.col.numpy(), layer.crow.numpy())
    weight: Any = csr_matrix(parts, shape=(layer.out_features, layer.in_features))
    inputs, upstream = (np.ascontiguousarray(part.detach().numpy().T) for part in (x, grad))
    rows, columns = layer.index.rows().numpy(), layer.col.numpy()
    momentum = np.zeros_like(weight.data)
    at_once = max(1, _CHUNK // len(x))

    def step() -> object:
        outputs, of_inputs = weight @ inputs, weight.T @ upstream
        for begin in range(0, len(rows), at_once):
            some = slice(begin, begin + at_once)
            found = np.einsum("kb,kb->k", upstream[rows[some]], inputs[columns[some]])
            momentum[some] = MOMENTUM * momentum[some] + found
        weight.data -= RATE * momentum
        return outputs, of_inputs

    return step


CONTENDERS: dict[str, Callable[[Make, Tensor, Tensor], Step]] = {
    "bisparse": _sparse,
    "dense": _dense,
    "masked dense": _masked,
    "torch CSR": _torch_csr,
    "SciPy": _scipy,
}
