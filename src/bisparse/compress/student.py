"""The pruned network as a function of its trainable values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call

__all__ = ["Student"]


class Student:
    """Runs a model with other values than its own; the model itself keeps the dense ones.

    What moves: the values of parameters that are given, and all parameters of one dimension (biases, norms).

    Args:
        model: the dense model.
        values: new values by parameter or buffer; those of buffers stay fixed.
        masks: boolean mask by parameter.
    """

    def __init__(
        self, model: nn.Module, values: Mapping[Tensor, Tensor], masks: Mapping[Tensor, Tensor]
    ) -> None:
        self._model = model
        self._masks = dict(masks)
        self._names: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self._fixed = {t: v for t, v in values.items() if not isinstance(t, nn.Parameter)}
        moving: dict[Tensor, Tensor] = {t: v for t, v in values.items() if isinstance(t, nn.Parameter)}
        for parameter in model.parameters():
            if parameter.dim() == 1 and parameter.is_floating_point():
                moving.setdefault(parameter, parameter.data)
        # Trained in float32 whatever the model's dtype: updates of 1e-4 vanish in bfloat16.
        self._masters = {t: v.detach().float().clone().requires_grad_(True) for t, v in moving.items()}

    def parameters(self) -> list[Tensor]:
        """What an optimizer is to move, in float32."""
        return list(self._masters.values())

    def run(self, call: Call) -> Any:
        """The model's output for one call, under the student's values."""
        worn = {
            name: self._value(t) if t in self._masters else self._fixed[t]
            for name, t in self._names.items()
            if t in self._masters or t in self._fixed
        }
        return torch.func.functional_call(self._model, worn, call.args, dict(call.kwargs))

    def values(self) -> dict[Tensor, Tensor]:
        """Present values by parameter or buffer, masked, in their own dtypes."""
        return self._fixed | {tensor: self._value(tensor).detach() for tensor in self._masters}

    def _value(self, tensor: Tensor) -> Tensor:
        master = self._masters[tensor]
        mask = self._masks.get(tensor)
        return (master if mask is None else master * mask).to(tensor.dtype)
