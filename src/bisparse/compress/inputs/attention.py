"""Inputs of the projections inside ``nn.MultiheadAttention``, which calls none of them as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.inputs.stage import Features, flat_samples

__all__ = ["attention_input_features", "attention_output_features"]


def _query_key_value(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    names = ("query", "key", "value")
    return [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(names)]


def attention_input_features(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], valid: Tensor | None
) -> dict[str, Features]:
    """Inputs of ``in_proj_weight`` (query, key, value: one group each) or of the three separate weights."""
    flat = [flat_samples(inputs, valid) for inputs in _query_key_value(args, kwargs)]
    if "in_proj_weight" in dict(module.named_parameters(recurse=False)):
        return {"in_proj_weight": flat}
    return {f"{letter}_proj_weight": [part] for letter, part in zip("qkv", flat, strict=True)}


def attention_output_features(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], valid: Tensor | None
) -> Features:
    """Input of ``out_proj``: what the module returns when its output projection is the identity."""
    projection = module.out_proj
    weight, bias = projection.weight.data, None if projection.bias is None else projection.bias.data
    try:
        projection.weight.data = torch.eye(module.embed_dim, dtype=weight.dtype, device=weight.device)
        if bias is not None:
            projection.bias.data = torch.zeros_like(bias)
        return [flat_samples(module.forward(*args, **kwargs)[0], valid)]
    finally:
        projection.weight.data = weight
        if bias is not None:
            projection.bias.data = bias
