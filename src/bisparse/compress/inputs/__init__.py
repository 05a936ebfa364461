"""What each weight is multiplied with: one small file per kind of module, one line each in :func:`stages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bisparse.compress.inputs.attention import attention_input_features, attention_output_features
from bisparse.compress.inputs.convolution import conv_features, conv_targets, conv_transpose_features
from bisparse.compress.inputs.functional import functional_features
from bisparse.compress.inputs.recurrent import cell_features, recurrent_features
from bisparse.compress.inputs.stage import Features, Reader, Stage, flat_samples
from bisparse.weights import Weight

__all__ = ["Features", "Reader", "Stage", "flat_samples", "stages", "visited_module"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def visited_module(weight: Weight, model: nn.Module) -> nn.Module:
    """The module whose calls show this weight's inputs: its owner, or the attention around an output
    projection.
    """
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.out_proj is weight.module:
            return module
    return weight.module


def stages(module: nn.Module, weights: Sequence[Weight]) -> list[Stage]:
    """The steps in which the weights of one visited module are solved.

    Args:
        module: from :func:`visited_module`.
        weights: all chosen weights that it stands for.

    Returns:
        Stages in order; each later one sees the new weights of the earlier ones. Embeddings have none.
    """
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return []
    if isinstance(module, nn.MultiheadAttention):
        return _attention_stages(module, weights)
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or _is_unknown(weights):
        return [Stage((weight,), _Named(module, weights)) for weight in weights]
    targets = _conv_targets(module, weights[0]) if isinstance(module, _CONVS) else None
    return [Stage(tuple(weights), _Named(module, weights), targets)]


def _conv_targets(module: nn.Module, weight: Weight) -> Reader:
    return lambda args, kwargs, valid: {
        weight.name: conv_targets(module, args or tuple(kwargs.values()), valid)
    }


def _is_unknown(weights: Sequence[Weight]) -> bool:
    return not isinstance(weights[0].module, (nn.Linear, *_CONVS, *_CONV_TRANSPOSES)) and (
        weights[0].layout.kind != "transposed"
    )


def _attention_stages(module: nn.MultiheadAttention, weights: Sequence[Weight]) -> list[Stage]:
    first = tuple(weight for weight in weights if weight.module is module)
    last = tuple(weight for weight in weights if weight.module is module.out_proj)

    def output(args: tuple[Any, ...], kwargs: Mapping[str, Any], valid: Tensor | None) -> dict[str, Features]:
        return {last[0].name: attention_output_features(module, args, kwargs, valid)}

    found = [Stage(first, _Named(module, first))] if first else []
    return found + ([Stage(last, output)] if last else [])


class _Named:
    """Features of one call, by full weight name."""

    def __init__(self, module: nn.Module, weights: Sequence[Weight]) -> None:
        self.module, self.weights = module, tuple(weights)

    def __call__(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], valid: Tensor | None
    ) -> dict[str, Features]:
        module = self.module
        if isinstance(module, nn.MultiheadAttention):
            found = attention_input_features(module, args, kwargs, valid)
        elif isinstance(module, nn.RNNBase):
            found = recurrent_features(module, args or tuple(kwargs.values()), valid)
        elif isinstance(module, nn.RNNCellBase):
            found = cell_features(module, args or tuple(kwargs.values()))
        elif isinstance(module, _CONVS):
            found = {"weight": conv_features(module, args or tuple(kwargs.values()), valid)}
        elif isinstance(module, _CONV_TRANSPOSES):
            found = {"weight": conv_transpose_features(module, args or tuple(kwargs.values()), valid)}
        elif _is_unknown(self.weights):
            return functional_features(module, self.weights, args, kwargs, valid)
        else:
            found = {"weight": [flat_samples((args or tuple(kwargs.values()))[0], valid)]}
        return {w.name: found[w.parameter_name] for w in self.weights if w.parameter_name in found}
