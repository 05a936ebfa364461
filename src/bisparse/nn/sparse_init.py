"""First values of sparse weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Init", "fresh_values", "layer_generator"]

Init = Literal["kaiming_uniform", "xavier_uniform", "dense_kaiming_uniform", "dense_xavier_uniform", "normal"]


def layer_generator(seed: int, shape: tuple[int, int]) -> torch.Generator:
    """Random numbers for the start of a layer.

    They are not those of a generator with the same seed: a topology step that draws with one would otherwise meet the
    very places that the layer has.
    """
    digest = hashlib.blake2b(
        f"sparse layer {shape[0]} x {shape[1]}, seed {seed}".encode(), digest_size=8
    ).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


def _uniform(values: Tensor, bound: float, generator: torch.Generator) -> Tensor:
    return values.uniform_(-bound, bound, generator=generator)


def _normal(values: Tensor, bound: float, generator: torch.Generator) -> Tensor:
    del bound  # 0.1 whatever the size of the layer: the original SET
    return values.normal_(0.0, 0.1, generator=generator)


# (inputs of a neuron, outputs of a neuron, inputs of the layer, outputs of the layer) -> bound
_BOUNDS: dict[str, Callable[[float, float, int, int], float]] = {
    "kaiming_uniform": lambda fan_in, _out, _inputs, _outputs: math.sqrt(6.0 / fan_in),
    "xavier_uniform": lambda fan_in, fan_out, _inputs, _outputs: math.sqrt(6.0 / (fan_in + fan_out)),
    "dense_kaiming_uniform": lambda _in, _out, inputs, _outputs: math.sqrt(6.0 / inputs),
    "dense_xavier_uniform": lambda _in, _out, inputs, outputs: math.sqrt(6.0 / (inputs + outputs)),
    "normal": lambda *_: 0.1,
}


def fresh_values(
    init: Init, count: int, shape: tuple[int, int], nnz: int, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Draw values for ``count`` of a layer's ``nnz`` connections, on the CPU.

    Args:
        init: ``kaiming_uniform`` and ``xavier_uniform`` count the connections that a neuron has on average;
            with ``dense_`` before them those that it would have in a dense layer, as the published code of truly sparse
            training does (values are then smaller by the root of the density); ``normal`` is N(0, 0.1^2), as in SET.
        count: how many.
        shape: (outputs, inputs) of the layer.
        nnz: connections of the layer.
        dtype: of the result.
        generator: on the CPU.

    Raises:
        ValueError: an unknown ``init``.
    """
    if init not in _BOUNDS:
        raise ValueError(f"init={init!r}: choose one of {', '.join(_BOUNDS)}")
    outputs, inputs = shape
    bound = _BOUNDS[init](max(1.0, nnz / outputs), max(1.0, nnz / inputs), inputs, outputs)
    draw = _normal if init == "normal" else _uniform
    return draw(torch.empty(count, device="cpu"), bound, generator).to(dtype)
