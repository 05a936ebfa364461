"""The whole model before and after: time and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bisparse.acceleration.observe import Run, first_tensor
from bisparse.acceleration.timing import time_calls

__all__ = ["Swap", "Whole", "compare_whole", "failure_with", "swap_all"]


@dataclass(frozen=True, slots=True)
class Swap:
    """A layer and what takes its place."""

    name: str
    dense: nn.Module
    sparse: nn.Module


@dataclass(frozen=True, slots=True)
class Whole:
    """Medians of one run of the sample, and the relative distance of its outputs."""

    dense_seconds: float
    sparse_seconds: float
    difference: float


def swap_all(model: nn.Module, swaps: Sequence[Swap], *, back: bool = False) -> None:
    """Put the sparse layers in, or the dense ones back."""
    for swap in swaps:
        parent, _, name = swap.name.rpartition(".")
        setattr(model.get_submodule(parent), name, swap.dense if back else swap.sparse)


def failure_with(model: nn.Module, swaps: Sequence[Swap], run: Run) -> str:
    """Why the model does not run with its sparse layers, ``""`` where it does; it holds the dense ones afterwards.

    A model may read what a dense layer has and a sparse one has not, for example ``self.out.weight.dtype``.
    """
    swap_all(model, swaps)
    try:
        run(model)
    except Exception as error:  # whatever a user's code raises
        return f"the model fails with sparse layers ({type(error).__name__}: {error})"
    finally:
        swap_all(model, swaps, back=True)
        model.zero_grad(set_to_none=True)
    return ""


def compare_whole(model: nn.Module, swaps: Sequence[Swap], run: Run) -> Whole:
    """Run the sample with dense and with sparse layers in turn; the model holds the dense ones afterwards.

    Every run begins with the same random numbers, so that dropout does not count as a difference. Cost: at least
    five runs of each, at most about eleven or 20 seconds.
    """
    outputs: dict[str, Any] = {}

    def timed(name: str) -> Any:
        torch.manual_seed(0)
        outputs[name] = run(model)

    def dense() -> None:
        swap_all(model, swaps, back=True)
        timed("dense")

    def sparse() -> None:
        swap_all(model, swaps)
        timed("sparse")

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        times = time_calls(
            {"dense": dense, "sparse": sparse}, before=lambda: None, device=device, repeats=9, seconds=20.0
        )
    finally:
        swap_all(model, swaps, back=True)
        model.zero_grad(set_to_none=True)
    return Whole(times["dense"], times["sparse"], _distance(outputs["sparse"], outputs["dense"]))


def _distance(sparse: Any, dense: Any) -> float:
    """Relative distance of the first floating-point tensors of two outputs; NaN where there is none."""
    try:
        one, other = first_tensor(sparse), first_tensor(dense)
    except TypeError:
        return float("nan")
    if one.shape != other.shape:
        return float("nan")
    one, other = one.detach().float(), other.detach().float()
    return float((one - other).norm() / other.norm().clamp_min(1e-30))
