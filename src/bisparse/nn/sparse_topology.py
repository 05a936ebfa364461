"""Sparse layers that find their connections while they learn: SET, RigL, and the pruning of neurons.

Each function is one step for one layer, to be called between optimizer steps; it carries every optimizer state. Memory
follows the non-zeros, and so does time but for the exact form of RigL, which looks at every absent connection.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bisparse.kernels.sparse_sampling import sample_absent
from bisparse.nn.sparse_edges import replace_edges_
from bisparse.nn.sparse_growth import largest_exact, largest_of_sample
from bisparse.nn.sparse_linear import SparseLinear
from bisparse.nn.sparse_recorder import GradientRecorder
from bisparse.pattern import part_of

__all__ = ["EdgeChange", "prune_neurons_", "rigl_step_", "set_step_"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """What a step changed.

    Attributes:
        dropped: connections that were taken away.
        grown: connections that were added.
    """

    dropped: int
    grown: int


@torch.no_grad()
def set_step_(
    layer: SparseLinear,
    fraction: float = 0.3,
    *,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer | None = None,
    grown: Literal["init", "zeros"] = "init",
) -> EdgeChange:
    """Sparse evolutionary training (Mocanu et al. 2018): drop weak connections, grow as many at random.

    Drops exactly ``floor(fraction * n)`` of the ``n`` positive (and zero) values, those closest to zero, and likewise
    of the negative ones, and grows the same number uniformly among all places that are free then.

    Args:
        layer: is changed.
        fraction: of each sign, 0 to 1 (zeta in the paper).
        generator: on the CPU; two runs with equal states agree.
        optimizer: see :func:`bisparse.nn.sparse_edges.replace_edges_`.
        grown: new values as a fresh layer has them, or zeros.

    Raises:
        ValueError: a fraction out of range.
    """
    _check_fraction(fraction)
    keep = torch.ones(layer.nnz, dtype=torch.bool, device=layer.values.device)
    for side in (layer.values >= 0, layer.values < 0):
        places = side.nonzero().squeeze(1)
        weakest = layer.values[places].abs().topk(part_of(len(places), fraction), largest=False).indices
        keep[places[weakest]] = False
    kept = layer.index.keys()[keep]
    count = layer.nnz - len(kept)
    keys = sample_absent(count, kept, layer.in_features * layer.out_features, generator)
    values = layer.fresh_values(count, generator) if grown == "init" else layer.values.new_zeros(count)
    replace_edges_(layer, keep, keys.to(layer.col.device), values, optimizer)
    return EdgeChange(count, count)


@torch.no_grad()
def rigl_step_(
    layer: SparseLinear,
    recorder: GradientRecorder,
    fraction: float,
    *,
    candidates: Literal["exact"] | int = 10,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> EdgeChange:
    """RigL (Evci et al. 2020): drop the smallest values, grow where the loss's gradient is largest.

    Keeps all but the ``floor(fraction * nnz)`` smallest magnitudes and grows as many of what is not kept. A connection
    that was just dropped may come back, and then keeps its value and states; new ones start at zero.

    Where a recorded input or gradient is not finite, nothing tells where to grow, and nothing changes: after a step
    that a ``GradScaler`` skips, connections stay as they are. That is logged as a warning.

    Args:
        layer: is changed.
        recorder: of the last backward pass; :class:`GradientRecorder`.
        fraction: 0 to 1.
        candidates: how many absent connections are looked at for each that is grown (random ones, and those just
            dropped); ``"exact"``: all of them, for the cost of one dense product, a few rows at a time.
        generator: on the CPU; needed for random candidates.
        optimizer: see :func:`bisparse.nn.sparse_edges.replace_edges_`.

    Raises:
        ValueError: a fraction or number of candidates out of range, nothing recorded, or no generator.
    """
    _check_fraction(fraction)
    if candidates != "exact" and (generator is None or candidates < 1):
        raise ValueError("random candidates need a generator and at least one for each connection")
    x, grad = recorder.of(layer)
    if not bool(x.isfinite().all() & grad.isfinite().all()):
        _LOG.warning("%s: recorded inputs or gradients are not finite: its connections stay", layer)
        return EdgeChange(0, 0)
    count = part_of(layer.nnz, fraction)
    keep = torch.ones(layer.nnz, dtype=torch.bool, device=layer.values.device)
    keep[layer.values.abs().topk(count, largest=False).indices] = False
    if candidates == "exact":
        keys = largest_exact(layer, x, grad, keep, count)
    else:
        assert generator is not None
        keys = largest_of_sample(layer, x, grad, keep, count, candidates * count, generator)
    back = torch.isin(layer.index.keys(), keys)
    new = keys[~torch.isin(keys, layer.index.keys()[back])]
    dropped = int((~(keep | back)).sum())
    replace_edges_(layer, keep | back, new, layer.values.new_zeros(len(new)), optimizer)
    return EdgeChange(dropped, len(new))


@torch.no_grad()
def prune_neurons_(
    layer: SparseLinear, fraction: float, *, optimizer: torch.optim.Optimizer | None = None
) -> EdgeChange:
    """Importance pruning (Curci et al. 2021): cut all incoming connections of the weakest output neurons.

    A neuron's importance is the sum of its incoming magnitudes. Of the neurons that still have incoming connections,
    the ``floor(fraction * n)`` least important lose all of them; ``nnz`` shrinks and what follows refills only to that.
    Biases and outgoing connections stay as they are.

    Args:
        layer: is changed.
        fraction: of the neurons that are connected, 0 to 1.
        optimizer: see :func:`bisparse.nn.sparse_edges.replace_edges_`.

    Raises:
        ValueError: a fraction out of range.
    """
    _check_fraction(fraction)
    rows = layer.index.rows()
    wide = torch.promote_types(layer.values.dtype, torch.float32)
    importance = torch.zeros(layer.out_features, dtype=wide, device=layer.values.device)
    importance.index_add_(0, rows, layer.values.detach().abs().to(wide))
    alive = (layer.crow.diff() > 0).nonzero().squeeze(1)
    weakest = alive[importance[alive].topk(part_of(len(alive), fraction), largest=False).indices]
    cut = torch.zeros(layer.out_features, dtype=torch.bool, device=layer.values.device)
    cut[weakest] = True
    keep: Tensor = ~cut[rows]
    before = layer.nnz
    replace_edges_(layer, keep, optimizer=optimizer)
    return EdgeChange(before - layer.nnz, 0)


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: it must lie between 0 and 1")
