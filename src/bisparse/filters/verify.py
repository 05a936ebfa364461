"""Is the small network the large one with zeros in place of what was removed?"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.filters.plan import FilterPlan, apply_plan
from bisparse.filters.removal import mask_removed_

__all__ = ["IncomparableError", "output_difference", "removal_error"]


class IncomparableError(ValueError):
    """Outputs that nothing can be compared with."""


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def output_difference(first: nn.Module, second: nn.Module, call: Call) -> float:
    """The largest difference of any output, relative to the largest output of the first network.

    Equal infinities (of masked scores) are no difference.

    Raises:
        ValueError: shapes differ.
        IncomparableError: the first network returns NaN, or no tensor.
    """
    with evaluation_state(first), evaluation_state(second):
        expected, found = _tensors(call.run(first)), _tensors(call.run(second))
    if not expected:
        raise IncomparableError(f"{type(first).__name__} returns no tensor that could be compared")
    if [x.shape for x in expected] != [x.shape for x in found]:
        raise ValueError("the networks return tensors of different shapes")
    largest = 0.0
    for a, b in zip(expected, found, strict=True):
        if bool(a.isnan().any()):
            raise IncomparableError("the network returns NaN: check the calibration data and the weights")
        differs = a != b
        if a.is_floating_point() and bool(differs.any()):
            finite = a[a.isfinite()].abs()
            scale = max(float(finite.max()) if len(finite) else 0.0, torch.finfo(a.dtype).tiny)
            difference = float((a - b)[differs].abs().max()) / scale
            largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest


def removal_error(model: nn.Module, plan: FilterPlan, call: Call) -> float:
    """Difference between the network without some filters and the one in which they are zero.

    Raises:
        Exception: whatever the smaller network raises when it runs, where its code contradicts the plan.
    """
    return output_difference(mask_removed_(copy.deepcopy(model), plan), apply_plan(model, plan), call)
