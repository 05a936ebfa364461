"""Which absent connections of a sparse layer have the largest gradients, in memory that follows the non-zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.kernels.sparse_index import row_starts
from bisparse.kernels.sparse_products import sparse_gradient
from bisparse.kernels.sparse_sampling import sample_absent
from bisparse.nn.sparse_linear import SparseLinear

__all__ = ["largest_exact", "largest_of_sample"]


@torch.no_grad()
def largest_of_sample(
    layer: SparseLinear,
    x: Tensor,
    grad: Tensor,
    keep: Tensor,
    count: int,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Among the dropped connections and ``samples`` random absent ones, those whose gradients are largest.

    Args:
        layer: whose connections.
        x: (batch, in_features): its inputs.
        grad: (batch, out_features): gradients of its outputs.
        keep: (nnz) boolean: connections that stay and are no candidates.
        count: how many are wanted.
        samples: absent connections to look at; all of them where there are fewer.
        generator: on the CPU.

    Returns:
        (count) int64 keys; fewer where there are fewer candidates.

    Cost: ``nnz`` + ``samples`` * batch; memory likewise.
    """
    keys = layer.index.keys()
    total = layer.in_features * layer.out_features
    drawn = sample_absent(min(samples, total - keys.numel()), keys, total, generator).to(keys.device)
    candidates = torch.cat([keys[~keep], drawn]).sort().values
    row = candidates // layer.in_features
    places = (candidates - row * layer.in_features).int()
    values = layer.values.new_zeros(len(candidates))
    scores = sparse_gradient(grad, x, values, row_starts(row, layer.out_features), places).abs()
    return candidates[scores.topk(min(count, len(candidates))).indices]


@torch.no_grad()
def largest_exact(layer: SparseLinear, x: Tensor, grad: Tensor, keep: Tensor, count: int) -> Tensor:
    """Among all connections that are not kept, those whose gradients are largest.

    The dense gradient is made a few rows at a time, never more than ``nnz`` and a row together, and the best so far are
    kept.

    Args:
        layer: whose connections.
        x: (batch, in_features): its inputs.
        grad: (batch, out_features): gradients of its outputs.
        keep: (nnz) boolean: connections that stay and are no candidates.
        count: how many are wanted.

    Returns:
        (count) int64 keys; fewer where there are fewer candidates.

    Cost: the dense product, ``in_features * out_features * batch``.
    """
    width, rows = layer.in_features, layer.out_features
    at_once = max(1, layer.nnz // width)
    starts = layer.crow.cpu()
    best = x.new_empty(0)
    keys = torch.empty(0, dtype=torch.int64, device=x.device)
    for first in range(0, rows, at_once):
        end = min(first + at_once, rows)
        scores = (grad[:, first:end].t() @ x).abs_()
        scores[_kept_places(layer, keep, int(starts[first]), int(starts[end]), first)] = -1.0
        top = scores.view(-1).topk(min(count, scores.numel()))
        best = torch.cat([best, top.values])
        keys = torch.cat([keys, top.indices + first * width])
        best, order = best.topk(min(count, len(best)))
        keys = keys[order]
    return keys[best != -1.0]  # gradients that are not a number count as the largest, as in topk


def _kept_places(
    layer: SparseLinear, keep: Tensor, start: int, end: int, first: int
) -> tuple[Tensor, Tensor]:
    """Rows, counted from ``first``, and columns of the kept ones among the connections ``start`` to ``end``."""
    place = keep[start:end].nonzero().squeeze(1) + start
    row = torch.searchsorted(layer.crow, place.int(), right=True) - 1
    return row - first, layer.col[place].long()
