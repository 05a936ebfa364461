"""The Jacobian applied to a direction of the parameters."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.func import jvp

from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY, plan_jacobian
from bisparse.kernel_theory.network import Network

__all__ = ["directional"]

_log = logging.getLogger(__name__)


def directional(
    network: Network, X: Tensor, direction: dict[str, Tensor], memory: int = DEFAULT_MEMORY
) -> Tensor:
    """J(X) applied to a direction of the parameters: (n, C).

    In one forward pass; where an operation has no forward derivative (fused attention), by the rows of J.

    Args:
        network: what is differentiated.
        X: (n, ...) inputs.
        direction: parameter name to a tensor of its shape; its masked entries do not count.
        memory: bytes that rows of J may take.
    """
    values = network.values()
    tangent = {name: network.masked(name, direction[name]) for name in values}
    try:
        result: Tensor = jvp(
            lambda parameters: network(network.inputs(X), parameters), (values,), (tangent,)
        )[1]
    except NotImplementedError as error:
        _log.info("no forward derivative (%s): by rows", str(error).splitlines()[0])
        return _along_rows(network, X, tangent, memory)
    return result.detach()


def _along_rows(network: Network, X: Tensor, tangent: dict[str, Tensor], memory: int) -> Tensor:
    plan, _ = plan_jacobian(network, X, "full")
    kept = {name: plan.kept(name, value.reshape(1, 1, -1)).flatten() for name, value in tangent.items()}
    parts = []
    for _, part in plan.blocks(network.inputs(X), memory):
        moved = [factor.along(kept[name]) for name, factor in plan.rows(part).items()]
        parts.append(torch.stack(moved).sum(0))
    return torch.cat(parts)
