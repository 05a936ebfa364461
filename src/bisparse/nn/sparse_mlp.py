"""Multilayer perceptrons whose weights are sparse from the first step to the last."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from bisparse.nn.all_relu import AllReLU
from bisparse.nn.sparse_init import Init, fresh_values
from bisparse.nn.sparse_linear import SparseLinear, connections

__all__ = ["PUBLISHED", "Activation", "SparseMLP"]

Activation: TypeAlias = Literal["all-relu", "relu"]

_COMMON = {"epsilon": 20.0, "dropout": 0.3, "init": "dense_kaiming_uniform"}
_FASHION = {"widths": (784, 1000, 1000, 1000, 10), "slope": 0.6, **_COMMON}
PUBLISHED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mnist": _FASHION,
        "fashion-mnist": _FASHION,
        "cifar10": {"widths": (3072, 4000, 1000, 4000, 10), "slope": 0.75, **_COMMON},
        "madelon": {"widths": (500, 400, 100, 400, 1), "activation": "relu", **_COMMON},
    }
)
"""The architectures of Curci et al. as their published programs have them, by name of the data."""


class SparseMLP(nn.Sequential):
    """Sparse layers, activations and dropout in turn; the last layer gives logits.

    Every layer is a :class:`SparseLinear` with the Erdos-Renyi number of weights, ``epsilon * (inputs + outputs)``, at
    random places, or with a share ``density`` of all weights. A layer that would be full is an ordinary ``nn.Linear``,
    and so is the last one with ``last="dense"``. ``density=1`` is therefore the dense network of the same shape.

    It is trained as any module: with ``loss.backward()`` and an optimizer over ``parameters()``; memory and time follow
    the number of weights. Let its places evolve with :func:`bisparse.nn.set_step_` or :func:`bisparse.nn.rigl_step_`,
    or in a training run with the callbacks of :mod:`bisparse.train.evolution`.

    Args:
        widths: features of the input, of every hidden layer and of the output.
        epsilon: of the Erdos-Renyi number of weights; give this or ``density``.
        density: share of the weights of every layer, in (0, 1].
        activation: of the hidden layers.
        slope: of All-ReLU, alternating in sign from layer to layer.
        dropout: share of the hidden activations that are dropped while training.
        last: ``"sparse"``, or ``"dense"`` for a full last layer.
        init: how weights start; see :func:`bisparse.nn.sparse_init.fresh_values`. Biases start at zero.
        seed: of places and initial weights; ``None``: drawn from PyTorch's global generator.

    Raises:
        ValueError: fewer than two widths, a width below 1, both or neither of ``epsilon`` and ``density``, a number
            that is out of range.

    Source: D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science", 2018; S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale",
    2021 (All-ReLU, architectures).
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        epsilon: float | None = None,
        density: float | None = None,
        activation: Activation = "all-relu",
        slope: float = 0.6,
        dropout: float = 0.0,
        last: Literal["sparse", "dense"] = "sparse",
        init: Init = "kaiming_uniform",
        seed: int | None = None,
    ) -> None:
        _check(widths, epsilon, density)
        if last not in ("sparse", "dense"):
            raise ValueError(f"last={last!r}: choose sparse or dense")
        first = int(torch.randint(2**31, (), device="cpu")) if seed is None else 1009 * seed
        layers: list[nn.Module] = []
        for number, (features, out_features) in enumerate(itertools.pairwise(widths), 1):
            final = number == len(widths) - 1
            sizes = (None, 1.0) if final and last == "dense" else (epsilon, density)
            layers.append(_linear(features, out_features, *sizes, init, first + number))
            if not final:
                layers.append(_activation(activation, slope, number + 1))
                layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers)

    @classmethod
    def published(cls, name: str, **changes: Any) -> SparseMLP:
        """An architecture of :data:`PUBLISHED` with some arguments changed, for example ``density=1`` or ``seed=3``.

        Raises:
            ValueError: no such name.
        """
        if name not in PUBLISHED:
            raise ValueError(
                f"{name!r} is none of the architectures {', '.join(PUBLISHED)}: give widths yourself"
            )
        options = dict(PUBLISHED[name])
        if changes.get("density") is not None:
            del options["epsilon"]
        return cls(**{**options, **changes})

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, outputs): all but the first dimension of the input are one vector."""
        logits: Tensor = super().forward(x.flatten(1))  # type: ignore[no-untyped-call]
        return logits

    @property
    def sparse_layers(self) -> list[SparseLinear]:
        """In the order in which they compute."""
        return [layer for layer in self if isinstance(layer, SparseLinear)]

    @property
    def weight_count(self) -> int:
        """Weights of all layers that are stored, biases excepted."""
        linear = (layer for layer in self if isinstance(layer, nn.Linear))
        return sum(layer.nnz for layer in self.sparse_layers) + sum(layer.weight.numel() for layer in linear)


def _check(widths: Sequence[int], epsilon: float | None, density: float | None) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths={tuple(widths)}: name an input and an output width, all positive")
    if (epsilon is None) == (density is None):
        raise ValueError(f"epsilon={epsilon}, density={density}: give one of them")
    if not (epsilon or density or 0.0) > 0.0:
        raise ValueError(f"epsilon={epsilon}, density={density}: must be positive")


def _linear(
    features: int, out_features: int, epsilon: float | None, density: float | None, init: Init, seed: int
) -> nn.Module:
    """A sparse layer, or an ordinary one where it would be full."""
    shape = out_features, features
    total = features * out_features
    if connections(shape, density, epsilon) < total:
        return SparseLinear(features, out_features, epsilon=epsilon, density=density, init=init, seed=seed)
    linear = nn.Linear(features, out_features, device="meta").to_empty(device=torch.get_default_device())
    values = fresh_values(init, total, shape, total, linear.weight.dtype, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        linear.weight.copy_(values.view(shape))
        linear.bias.zero_()
    return linear


def _activation(name: Activation, slope: float, layer: int) -> nn.Module:
    if name == "relu":
        return nn.ReLU()
    if name == "all-relu":
        return AllReLU(layer, slope)
    raise ValueError(f"activation={name!r}: choose all-relu or relu")
