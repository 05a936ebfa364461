"""Products with sparse matrices by PyTorch's own operators: on devices other than the CPU, and to compare with."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["torch_gradient", "torch_multiply"]


def torch_multiply(
    x: Tensor, values: Tensor, starts: Tensor, places: Tensor, perm: Tensor | None = None
) -> Tensor:
    """``x W^T`` as the product of a CSR tensor with ``x^T``; arguments as for ``sparse_multiply``, x (batch, width)."""
    wide = _wide(x, values)
    ordered = values if perm is None else values[perm]
    matrix = _csr(starts, places, ordered.to(wide), x.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        product: Tensor = torch.mm(matrix, x.to(wide).t())
    turned: Tensor = product.t().to(x.dtype)
    return turned


def torch_gradient(y: Tensor, x: Tensor, values: Tensor, starts: Tensor, places: Tensor) -> Tensor:
    """The entries of ``y^T x`` where the matrix has non-zeros: PyTorch's sampled product."""
    wide = _wide(x, values)
    pattern = _csr(starts, places, torch.zeros_like(values, dtype=wide), x.shape[1])
    sampled = torch.sparse.sampled_addmm(pattern, y.to(wide).t(), x.to(wide), beta=0.0)
    gradient: Tensor = sampled.values().to(values.dtype)
    return gradient


def _wide(x: Tensor, values: Tensor) -> torch.dtype:
    """Sums run in float32 at least."""
    return torch.promote_types(torch.promote_types(x.dtype, values.dtype), torch.float32)


def _csr(starts: Tensor, places: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(beta state|invariant checks).*")
        return torch.sparse_csr_tensor(
            starts, places, values, (starts.numel() - 1, width), check_invariants=False
        )
