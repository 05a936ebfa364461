"""Inputs of parameters that a module multiplies with by itself: stacked experts, modules of unknown
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bisparse.compress.inputs.stage import Features, flat_samples
from bisparse.weights import Weight, as_rows

__all__ = ["functional_features"]

_PRODUCTS = {torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__}
_GROUPED = {getattr(F, "grouped_mm", None), getattr(torch, "_grouped_mm", None)} - {None}


class _Recorder(TorchFunctionMode):
    """Records what the watched parameters, or slices of them, are multiplied with."""

    def __init__(self, weights: Iterable[Weight]) -> None:
        super().__init__()
        self.weights = {weight.parameter.untyped_storage().data_ptr(): weight for weight in weights}
        self.samples: dict[str, dict[int, list[Tensor]]] = {w.name: {} for w in self.weights.values()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            self._record(args[0], args[1] if len(args) > 1 else kwargs["weight"])
        elif func in _PRODUCTS and len(args) == 2:
            self._record(args[0], args[1])
        elif func in _GROUPED and "offs" in kwargs:
            self._record_groups(args[0], args[1], kwargs["offs"])
        return func(*args, **kwargs)

    def _record_groups(self, inputs: Tensor, operand: Tensor, offsets: Tensor) -> None:
        """Rows sorted by expert, each expert's up to its offset; rows behind the last one belong to none."""
        weight = self.weights.get(operand.untyped_storage().data_ptr())
        if weight is None or operand.dim() != 3 or len(offsets) != len(operand):
            return
        first = 0
        for expert, last in enumerate(offsets.tolist()):
            self.samples[weight.name].setdefault(expert, []).append(inputs[first:last])
            first = last

    def _record(self, inputs: Tensor, operand: Tensor) -> None:
        weight = self.weights.get(operand.untyped_storage().data_ptr())
        if weight is None:
            return
        samples = self.samples[weight.name]
        parameter = weight.parameter
        if parameter.dim() < 3:
            samples.setdefault(0, []).append(inputs)
            return
        first = (operand.storage_offset() - parameter.storage_offset()) // parameter.stride(0)
        if operand.dim() == 2:
            samples.setdefault(first, []).append(inputs)
            return
        for index in range(operand.shape[0]):
            samples.setdefault(first + index, []).append(inputs[index] if inputs.dim() == 3 else inputs)


def functional_features(
    module: nn.Module,
    weights: Iterable[Weight],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    valid: Tensor | None,
) -> dict[str, Features]:
    """Run the module once and watch its products (``F.linear``, ``@``, ``mm``, ``bmm``, ``grouped_mm``) with
    these parameters.

    A parameter with a leading expert axis may be used whole (``bmm``) or expert by expert. Weights that
    appear in no such product get no features and are left to data-free methods.
    """
    weights = list(weights)
    recorder = _Recorder(weights)
    with recorder:
        module.forward(*args, **kwargs)
    features: dict[str, Features] = {}
    for weight in weights:
        found = recorder.samples[weight.name]
        groups, _, columns = as_rows(weight.parameter, weight.layout).shape
        if not found or any(part.shape[-1] != columns for parts in found.values() for part in parts):
            continue
        empty = weight.parameter.new_zeros(0, columns)
        features[weight.name] = [
            torch.cat([flat_samples(part, valid) for part in found.get(group, [])] or [empty])
            for group in range(groups)
        ]
    return features
