"""Images in the memory format in which convolutions run faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.compress.outputs import output_tensor, split_call

__all__ = ["images_channels_last"]

_DTYPES = (torch.float32, torch.float64)


def _is_image(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() == 4
        and value.dtype in _DTYPES
        and value.device.type == "cpu"
    )


def _laid_out(call: Call) -> Call:
    """The same call with its images as (N, H, W, C) in memory; shapes stay (N, C, H, W)."""

    def converted(value: Any) -> Any:
        return value.contiguous(memory_format=torch.channels_last) if _is_image(value) else value

    args = tuple(converted(value) for value in call.args)
    return replace(call, args=args, kwargs={name: converted(value) for name, value in call.kwargs.items()})


@torch.no_grad()
def images_channels_last(calls: Sequence[Call], model: nn.Module) -> list[Call]:
    """Calls whose images lie channels last in memory, where that changes nothing but the time.

    On a CPU 2-D convolutions are faster in that format in both directions, and their windows are copied in
    longer runs. Shapes and values stay as they are. A model that minds (``view`` across the channels of an
    activation) is found by two samples that run in both formats, and gets its calls back as they were.

    Args:
        calls: calibration; float32 and float64 tensors of four dimensions on the CPU count as images.
        model: in evaluation mode.
    """
    values = [value for call in calls for value in (*call.args, *call.kwargs.values())]
    has_images = any(_is_image(value) for value in values)
    if not has_images or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return list(calls)
    sample = next(split_call(calls[0], 2))
    try:
        plain, found = (output_tensor(call.run(model)) for call in (sample, _laid_out(sample)))
    except (TypeError, ValueError):  # what is wrong with the call itself is said when it runs
        return list(calls)
    scale = float(plain.abs().max()) if plain.numel() else 0.0
    same = plain.shape == found.shape and torch.allclose(plain, found, rtol=1e-3, atol=1e-4 * scale)
    return [_laid_out(call) for call in calls] if same else list(calls)
