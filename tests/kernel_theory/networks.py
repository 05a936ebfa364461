"""Small networks that the theorems are about."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


def two_layer(
    inputs: int, width: int, *, squared: bool = False, outputs: int = 1, seed: int = 1
) -> nn.Sequential:
    """Bias-free, float64, degree 2 (3 with squared ReLU)."""
    activation: nn.Module = SquaredReLU() if squared else nn.ReLU()
    return spread(
        nn.Sequential(
            nn.Linear(inputs, width, bias=False), activation, nn.Linear(width, outputs, bias=False)
        ),
        seed,
    )


def three_layer(seed: int = 1, outputs: int = 1) -> nn.Sequential:
    """Bias-free, degree 3, 4 inputs."""
    layers = [nn.Linear(4, 12, bias=False), nn.ReLU(), nn.Linear(12, 10, bias=False), nn.ReLU()]
    return spread(nn.Sequential(*layers, nn.Linear(10, outputs, bias=False)), seed)


def spread(model: nn.Sequential, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    for parameter in model.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def problem(examples: int, inputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets sin(a x), and as many held-out inputs."""
    generator = torch.Generator().manual_seed(seed)
    X, Z = torch.randn(2, examples, inputs, generator=generator, dtype=torch.float64)
    return X, torch.sin(X @ torch.randn(inputs, generator=generator, dtype=torch.float64)), Z
