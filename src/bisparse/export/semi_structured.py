"""PyTorch's own 2:4 tensors from a 2:4 model, for inference on sparse tensor cores."""

from __future__ import annotations

import copy
import logging
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.sparse import (
    SparseSemiStructuredTensor,
    SparseSemiStructuredTensorCUSPARSELT,
    SparseSemiStructuredTensorCUTLASS,
    to_sparse_semi_structured,
)

from bisparse.weights import Selectors, find_weights

__all__ = ["semi_structured_misfit", "to_semi_structured"]

Model = TypeVar("Model", bound=nn.Module)
_LOG = logging.getLogger(__name__)


def semi_structured_misfit(weight: Tensor) -> str:
    """Why PyTorch's 2:4 kernels cannot hold a weight, with the remedy; ``""`` where they can. Needs no GPU.

    Args:
        weight: (rows, columns).
    """
    backend = _backend()
    rules = backend._DTYPE_SHAPE_CONSTRAINTS
    if weight.dtype not in rules:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in rules)
        return f"type {str(weight.dtype).removeprefix('torch.')}: convert it to one of {known}"
    rows, columns = rules[weight.dtype].sparse_min_rows, rules[weight.dtype].sparse_min_cols
    if weight.shape[0] % rows or weight.shape[1] % columns:
        wanted = tuple(
            -(-size // unit) * unit for size, unit in zip(weight.shape, (rows, columns), strict=True)
        )
        return (
            f"shape {tuple(weight.shape)}: rows must be a multiple of {rows} and columns of {columns}; "
            f"pad it with zeros to {wanted}, or leave it dense"
        )
    groups = weight.shape[1] // 4
    most = int((weight != 0).view(weight.shape[0], groups, 4).sum(-1).max()) if weight.numel() else 0
    return (
        f"not 2:4: a group of 4 holds {most} non-zeros; prune it first with pattern 2:4 or 2:4t"
        if most > 2
        else ""
    )


def _backend() -> type[SparseSemiStructuredTensor]:
    if SparseSemiStructuredTensor._FORCE_CUTLASS:
        return SparseSemiStructuredTensorCUTLASS
    return SparseSemiStructuredTensorCUSPARSELT


def to_semi_structured(
    model: Model, targets: Selectors | None = None, ignore: Selectors | None = ()
) -> Model:
    """A copy of a 2:4 model whose linear weights are ``torch.sparse`` semi-structured tensors, for inference.

    Linear layers whose weights are not 2:4, or of a type or shape that PyTorch's kernels refuse, stay dense;
    which and why is logged. Faster only for large weights and many tokens: measure
    (:func:`bisparse.accelerate`).

    Args:
        model: on a CUDA device; it is not changed.
        targets: layers to convert; each of them must fit. ``None``: every linear layer that does.
        ignore: layers to leave.

    Returns:
        The copy.

    Raises:
        RuntimeError: the weights are not on a CUDA device.
        ValueError: a layer in ``targets``, or every layer, does not fit; the message names shape, rule and
            remedy.
    """
    chosen = [w for w in find_weights(model, targets, ignore) if isinstance(w.module, nn.Linear)]
    misfits = {w.name: semi_structured_misfit(w.parameter.detach()) for w in chosen}
    refused = {name: reason for name, reason in misfits.items() if reason}
    if refused and (targets is not None or len(refused) == len(chosen)):
        name, reason = next(iter(refused.items()))
        raise ValueError(
            f"{name}: {reason}" + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else "")
        )
    if not chosen:
        raise ValueError("the model has no linear layer to convert")
    for name, reason in refused.items():
        _LOG.info("%s stays dense: %s", name, reason)
    fitting = [w for w in chosen if not misfits[w.name]]
    device = fitting[0].parameter.device
    if device.type != "cuda":
        raise RuntimeError(
            f"semi-structured tensors need a CUDA device, the model is on {device}: model.cuda() first"
        )
    memo = {id(w.parameter): _converted(w.parameter) for w in fitting}
    copied: Model = copy.deepcopy(model, memo)
    return copied


def _converted(weight: Tensor) -> nn.Parameter:
    with torch.no_grad():
        return nn.Parameter(to_sparse_semi_structured(weight.detach().contiguous()), requires_grad=False)
