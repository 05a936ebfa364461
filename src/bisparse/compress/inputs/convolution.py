"""Inputs of convolutions and transposed convolutions: one row per output position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.compress.inputs.stage import Features, flat_samples

__all__ = ["conv_features", "conv_targets", "conv_transpose_features"]


def _windows(inputs: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """(N, C, *size) -> (N, *out, C, *kernel): all windows of a padded input, as a view of a channels-last
    copy.
    """
    windows = inputs.movedim(1, -1).contiguous()  # runs of C are then copied as one piece
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        windows = windows.unfold(1 + axis, (size - 1) * gap + 1, step)[..., ::gap]
    return windows


def _group_features(windows: Tensor, groups: int, valid: Tensor | None) -> Features:
    """(N, *out, C, *kernel) windows as one (n, prod(kernel) * C/groups) tensor per group."""
    dims = (windows.dim() - 2) // 2
    features = windows.movedim(1 + dims, -1)  # (N, *out, *kernel, C)
    width = features.shape[-1] // groups
    flat = [features[..., g * width : (g + 1) * width].flatten(1 + dims) for g in range(groups)]
    return [flat_samples(part, valid if dims == 1 else None) for part in flat]


def _batched(inputs: Tensor, dims: int) -> Tensor:
    return inputs.unsqueeze(0) if inputs.dim() == dims + 1 else inputs


def conv_features(module: nn.Module, args: tuple[Any, ...], valid: Tensor | None) -> Features:
    """Inputs of Conv1d/2d/3d with any stride, dilation, padding mode and groups.

    Memory: prod(kernel) times the (padded) input of one batch.
    """
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    inputs = _batched(args[0], len(module.kernel_size))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    return _group_features(
        _windows(padded, module.kernel_size, module.stride, module.dilation), module.groups, valid
    )


def conv_targets(module: nn.Module, args: tuple[Any, ...], valid: Tensor | None) -> Features:
    """Outputs of a convolution without its bias, one (n, O/groups) tensor per group, in the order of the
    inputs.
    """
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    inputs = _batched(args[0], len(module.kernel_size))
    outputs = module._conv_forward(inputs, module.weight, None).movedim(1, -1)
    parts = outputs.chunk(module.groups, -1)
    return [flat_samples(part, valid if outputs.dim() == 3 else None) for part in parts]


def _stuffed(inputs: Tensor, stride: Sequence[int]) -> Tensor:
    """Put stride - 1 zeros between neighbouring inputs."""
    size = [(n - 1) * step + 1 for n, step in zip(inputs.shape[2:], stride, strict=True)]
    stuffed = inputs.new_zeros(*inputs.shape[:2], *size)
    positions = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
    stuffed[positions] = inputs
    return stuffed


def conv_transpose_features(module: nn.Module, args: tuple[Any, ...], valid: Tensor | None) -> Features:
    """Inputs of ConvTranspose1d/2d/3d: a transposed convolution is a convolution over its zero-stuffed
    input.
    """
    assert isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    dims = len(module.kernel_size)
    inputs = _batched(args[0], dims)
    extra = module._output_padding(
        inputs,
        args[1] if len(args) > 1 else None,
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.kernel_size,  # type: ignore[arg-type]
        dims,
        module.dilation,  # type: ignore[arg-type]
    )
    pads: list[int] = []
    for axis in reversed(range(dims)):
        margin = (module.kernel_size[axis] - 1) * module.dilation[axis] - int(module.padding[axis])
        pads += [margin, margin + extra[axis]]
    padded = F.pad(_stuffed(inputs, module.stride), pads)
    windows = _windows(padded, module.kernel_size, (1,) * dims, module.dilation)
    return _group_features(torch.flip(windows, tuple(range(2 + dims, 2 + 2 * dims))), module.groups, valid)
