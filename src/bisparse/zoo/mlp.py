"""A plain dense network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["mlp"]


def mlp(widths: Sequence[int], *, seed: int = 0) -> nn.Sequential:
    """A multilayer perceptron: Linear, ReLU, Linear, ..., Linear.

    Args:
        widths: features of the input, of every hidden layer and of the output; ``(64, 256, 10)`` has two
            Linear layers.
        seed: of the initial weights; PyTorch's global generator is left as it was.

    Returns:
        The network in training mode, float32, with PyTorch's default initialisation.

    Raises:
        ValueError: fewer than two widths, or a width below 1.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths={tuple(widths)}: name an input and an output width, all positive")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for features, out_features in itertools.pairwise(widths):
            layers += [nn.Linear(features, out_features), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
