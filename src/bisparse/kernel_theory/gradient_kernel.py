"""The gradient kernel K = J Jᵀ (the empirical neural tangent kernel), dense or restricted to kept weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.factors import Factor
from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY, Jacobian, Method, plan_jacobian
from bisparse.kernel_theory.masked import Masks
from bisparse.kernel_theory.network import Network, Outputs, prepare
from bisparse.weights.select import Selectors

__all__ = ["gradient_kernel", "kernel_of"]


def gradient_kernel(
    model: nn.Module,
    X: Tensor,
    Z: Tensor | None = None,
    *,
    outputs: Outputs = "trace",
    masks: Masks = None,
    params: Selectors | None = None,
    method: Method = "auto",
    memory: int = DEFAULT_MEMORY,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """K(x, z) = Σ_i ∂f(x)/∂θ_i ∂f(z)/∂θ_i over the parameters that count.

    Gradient flow on the squared loss moves the outputs by df(x)/dt = -mean over examples z of K(x, z)(f(z) - y).
    With masks this is K_M: the network is taken at W*M and only kept entries count, so rank K_M is at most their
    number.

    Args:
        model: any module that maps (n, ...) to (n, ...) row by row; it is copied, put into evaluation mode, and
            left as it is.
        X: (n, ...) inputs.
        Z: (m, ...) inputs of the columns; ``None`` = X, and the result is exactly symmetric.
        outputs: ``"trace"`` = summed over outputs; ``"full"`` = all pairs; a number = that output; numbers = their
            pairs.
        masks: ``None``, ``"zeros"`` (a pruned model: its zeros are masked) or names to masks.
        params: parameters by name, glob, class or callable; ``None`` = all that require a gradient.
        method: ``"generic"`` = ``torch.func`` for every parameter; ``"auto"`` = Linear and convolution layers from
            their inputs and output derivatives, where that is proved to be the same.
        memory: bytes that the derivatives may take; the kernel itself and the model's activations come on top.
            Where all rows do not fit, blocks of rows are computed again for every block of columns.
        dtype: of the computation, for example ``torch.float64``; ``None`` = the model's.

    Returns:
        (n, m) for ``"trace"`` or one output; else (n C, m C), example by example, outputs innermost.

    Raises:
        ValueError: what :func:`bisparse.kernel_theory.network.prepare` refuses, or too little memory for one row.

    Cost n m C P for the trace (C² in full), or n m (D + C R) for an unmasked Linear layer.
    Source: Jacot et al. 2018; Dou and Liang, "Training neural networks as learning data-adaptive kernels", 2020.
    """
    network = prepare(model, X, masks=masks, params=params, dtype=dtype)
    return kernel_of(network, X, Z, outputs=outputs, method=method, memory=memory)


def kernel_of(
    network: Network,
    X: Tensor,
    Z: Tensor | None = None,
    *,
    outputs: Outputs = "trace",
    method: Method = "auto",
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """The same for a prepared network."""
    plan, trace = plan_jacobian(network, X, outputs, method)
    X = network.inputs(X)
    if Z is None:
        return _flat(_symmetric(plan, X, trace=trace, memory=memory))
    Z = network.inputs(Z)
    rows = []
    for _, left in plan.blocks(X, memory, 2):
        factors = plan.rows(left)
        parts = [_product(factors, plan.rows(right), trace, memory) for _, right in plan.blocks(Z, memory, 2)]
        rows.append(torch.cat(parts, 1 if trace else 2))
    return _flat(torch.cat(rows))


def _symmetric(plan: Jacobian, X: Tensor, *, trace: bool, memory: int) -> Tensor:
    """Only blocks on and above the diagonal are computed."""
    count = len(plan.outputs)
    shape = (len(X), len(X)) if trace else (len(X), count, len(X), count)
    kernel = plan.network.reference.new_empty(shape)
    if len(X) * plan.row_bytes <= memory:
        factors = plan.rows(X)
        kernel = _product(factors, factors, trace, memory)
        return _mirrored(kernel)
    blocks = list(plan.blocks(X, memory, 2))
    for number, (rows, left) in enumerate(blocks):
        factors = plan.rows(left)
        for columns, right in blocks[number:]:
            other = factors if columns == rows else plan.rows(right)
            kernel_part = _product(factors, other, trace, memory)
            if trace:
                kernel[rows, columns] = kernel_part
                kernel[columns, rows] = kernel_part.T
            else:
                kernel[rows, :, columns] = kernel_part
                kernel[columns, :, rows] = kernel_part.permute(2, 3, 0, 1)
    return _mirrored(kernel)


def _mirrored(kernel: Tensor) -> Tensor:
    """Rounding must not make it unsymmetric."""
    transposed = kernel.T if kernel.dim() == 2 else kernel.permute(2, 3, 0, 1)
    return (kernel + transposed) / 2


def _product(left: dict[str, Factor], right: dict[str, Factor], trace: bool, memory: int) -> Tensor:
    """The sum of all parts, one at a time."""
    first, *others = left
    total = left[first].product(right[first], trace=trace, memory=memory)
    for name in others:
        total += left[name].product(right[name], trace=trace, memory=memory)
    return total


def _flat(kernel: Tensor) -> Tensor:
    return kernel if kernel.dim() == 2 else kernel.flatten(0, 1).flatten(1)
