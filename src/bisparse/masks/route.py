"""Which solver takes exact masks: the native core, or the one on the device where the scores live."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["on_device"]

_log = logging.getLogger(__name__)


def on_device(scores: object) -> bool:
    """Whether exact masks of these scores are solved where they live, rather than on the CPU.

    So are dense floating-point CUDA tensors of up to 32 bits on NVIDIA GPUs, where Triton is installed (PyTorch's CUDA
    builds for Linux bring it). float64 and integers are solved in float64 on the CPU. A missing Triton is logged once.
    """
    if not isinstance(scores, Tensor) or not scores.is_cuda or scores.layout != torch.strided:
        return False
    if not scores.dtype.is_floating_point or scores.dtype.itemsize > 4 or torch.version.hip is not None:
        return False
    return _has_triton()


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    if find_spec("triton") is not None:
        return True
    _log.warning("Triton is not installed: masks of CUDA scores are solved on the CPU; pip install triton")
    return False
