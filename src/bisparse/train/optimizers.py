"""The usual optimizers by name, with weight decay on weights only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from bisparse.nn.sparse_linear import SparseLinear

__all__ = ["OptimizerSpec"]

_Name: TypeAlias = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSpec:
    """An optimizer that is yet to be given parameters.

    Attributes:
        name: ``sgd``, ``adam`` (decay coupled, as L2) or ``adamw`` (decay decoupled).
        lr: learning rate.
        weight_decay: on parameters of two or more dimensions and values of sparse layers; never on biases and norms.
        momentum: of ``sgd``.
        nesterov: of ``sgd``.
        betas: of ``adam`` and ``adamw``.

    Raises:
        ValueError: an unknown name, or a learning rate that is not positive.
    """

    name: _Name = "sgd"
    lr: float = 0.1
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.name not in get_args(_Name):
            raise ValueError(f"optimizer {self.name!r}: choose one of {', '.join(get_args(_Name))}")
        if not self.lr > 0.0:
            raise ValueError(f"lr={self.lr}: must be positive")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that need a gradient."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sparse = {id(layer.values) for layer in model.modules() if isinstance(layer, SparseLinear)}
        decays = [parameter.dim() >= 2 or id(parameter) in sparse for parameter in trained]
        groups = [
            {
                "params": [p for p, d in zip(trained, decays, strict=True) if d],
                "weight_decay": self.weight_decay,
            },
            {"params": [p for p, d in zip(trained, decays, strict=True) if not d], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.name == "sgd":
            return torch.optim.SGD(groups, self.lr, momentum=self.momentum, nesterov=self.nesterov)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, self.lr, betas=self.betas)
