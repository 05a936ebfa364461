"""The truly sparse layers of a model, for reports and for processes that have to agree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from bisparse.nn.sparse_linear import SparseLinear
from bisparse.train.processes import Processes

__all__ = ["SparseLayer", "agree", "named_sparse_layers", "sparse_layers"]


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """One layer.

    Attributes:
        name: of the module.
        shape: (outputs, inputs).
        connections: weights that exist.
    """

    name: str
    shape: tuple[int, int]
    connections: int


def named_sparse_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """The layers by name, in the order of the model."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseLinear)}


def sparse_layers(model: nn.Module) -> tuple[SparseLayer, ...]:
    """Sizes of all truly sparse layers."""
    return tuple(
        SparseLayer(name, (layer.out_features, layer.in_features), layer.nnz)
        for name, layer in named_sparse_layers(model).items()
    )


def agree(model: nn.Module, processes: Processes) -> None:
    """Check that all processes have the same connections and weights; each process has to call it.

    Raises:
        ValueError: a process differs; on every process.
    """
    if processes.world == 1:
        return
    own = _digest(model)
    copies = processes.gathered(own)
    other = [rank for rank, digest in enumerate(copies) if not torch.equal(digest, copies[0])]
    if other:
        raise ValueError(
            f"the sparse layers of rank(s) {other} differ from those of rank 0: build the model with the same "
            "seed, and change its connections with generators of the same seed, on every process"
        )


def _digest(model: nn.Module) -> torch.Tensor:
    """(4) int64 that tell states of the layers apart."""
    seen = hashlib.sha256()
    for layer in named_sparse_layers(model).values():
        for part in (layer.crow, layer.col, layer.values.detach()):
            seen.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(seen.digest()), dtype=torch.int64)
