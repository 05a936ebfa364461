"""Where tensors are: the CPU prefers few passes over memory, other devices few launches and no waiting."""

from __future__ import annotations

from torch import Tensor

__all__ = ["on_cpu"]


def on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is in the processor's memory. Tests replace it, to run on the CPU what other devices do."""
    return tensor.device.type == "cpu"
