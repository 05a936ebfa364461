"""A convolution that computes with the kept values of an N:M weight, as a product with its matrix view."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

import bisparse.kernels.operators  # noqa: F401  (registers the operators)
from bisparse.kernels.packed import pack_matrix
from bisparse.nn.find_pattern import find_pattern
from bisparse.nn.packed_layer import PackedLayer
from bisparse.pattern import NM, TransposableNM
from bisparse.weights.kinds import unsupported_reason
from bisparse.weights.layout import Layout
from bisparse.weights.rows import as_rows, from_rows

__all__ = ["PackedConv2d"]

_Pair: TypeAlias = tuple[int, int]
_LAYOUT = Layout("conv")


class PackedConv2d(PackedLayer):
    """A 2-D convolution whose (O, I, h, w) weight obeys ``keep:block`` along the input channels.

    The weight is one packed matrix of ``O`` rows and ``h * w * I`` columns, kernel positions first. A 1 x 1 kernel
    multiplies the image as it lies in memory; a larger one multiplies the patches, which are ``h * w`` times the image.
    Everything else is as in :class:`bisparse.nn.PackedLinear`. Whether it is faster than the dense convolution depends
    on the shape far more than for linear layers: measure (docs/kernels.md has a table).

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: (h, w).
        pattern: ``keep:block`` along the input channels.
        stride: of the convolution.
        padding: zeros at (left, right, top, bottom).
        dilation: of the kernel.
        bias: whether there is one.
        dtype: of values and bias.

    Raises:
        ValueError: a pattern that is not ``keep:block``, or groups that would straddle kernel positions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        pattern: str | NM | TransposableNM,
        *,
        stride: _Pair = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: _Pair = (1, 1),
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        positions = kernel_size[0] * kernel_size[1]
        super().__init__(out_channels, positions * in_channels, pattern, bias, dtype)
        if positions > 1 and in_channels % self.pattern.block:
            raise ValueError(
                f"{in_channels} input channels are no multiple of {self.pattern.block}, so groups of {self.pattern} "
                "would straddle kernel positions: keep this convolution dense"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, pattern: str | NM | TransposableNM | None = None, mask: Tensor | None = None
    ) -> PackedConv2d:
        """Pack a masked convolution.

        Args:
            conv: without groups, padded with zeros, on the CPU; it is not changed.
            pattern: that its weight obeys along the input channels; without it, the smallest is found.
            mask: shaped like the weight, True = kept; without it, the non-zero weights are.

        Returns:
            A layer with its own memory that computes the same function.

        Raises:
            TypeError: another kind of module or a weight that cannot be packed.
            ValueError: groups, another padding mode, or a weight that breaks the pattern.
        """
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"PackedConv2d.from_conv takes a Conv2d, got {type(conv).__name__}")
        if (reason := unsupported_reason(conv, conv.weight)) is not None:
            raise TypeError(f"a weight {reason}")
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise ValueError(
                f"{conv.groups} groups and padding {conv.padding_mode!r}: only convolutions without groups that are "
                "padded with zeros can be packed; keep this one dense"
            )
        matrix = as_rows(conv.weight.detach(), _LAYOUT)[0]
        kept = None if mask is None else as_rows(mask, _LAYOUT)[0]
        packed = pack_matrix(matrix, find_pattern(matrix, kept) if pattern is None else pattern, kept)
        height, width = conv.kernel_size
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        with torch.device("meta"):
            layer = cls(
                conv.in_channels,
                conv.out_channels,
                (height, width),
                packed.pattern,
                stride=(conv.stride[0], conv.stride[1]),
                padding=(left, right, top, bottom),
                dilation=(conv.dilation[0], conv.dilation[1]),
                bias=conv.bias is not None,
                dtype=conv.weight.dtype,
            )
        layer._adopt(packed, conv.weight, conv.bias)
        return layer.train(conv.training)

    def _matrix(self, weight: Tensor) -> Tensor:
        return as_rows(weight, _LAYOUT)[0]

    def dense_weight(self) -> Tensor:
        """The (O, I, h, w) weight with zeros."""
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        return from_rows(self.packed.unpack().unsqueeze(0), _LAYOUT, shape)

    def to_conv(self) -> nn.Module:
        """The dense convolution, with zeros; where the padding is uneven, after a padding layer."""
        left, right, top, bottom = self.padding
        even = left == right and top == bottom
        conv = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            (top, left) if even else 0,
            self.dilation,
            bias=self.bias is not None,
            device="meta",
            dtype=self.values.dtype,
        )
        conv.weight = nn.Parameter(self.dense_weight(), requires_grad=self.values.requires_grad)
        if self.bias is not None:
            conv.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        layer: nn.Module = conv if even else nn.Sequential(nn.ZeroPad2d(self.padding), conv)
        return layer.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """(images, I, H, W) or (I, H, W) -> (images, O, H', W') or (O, H', W')."""
        x = self._ready(x)
        images = x if x.dim() == 4 else x.unsqueeze(0)
        patches = self._patches(functional.pad(images, self.padding) if any(self.padding) else images)
        pattern = self.pattern
        product: Tensor = torch.ops.bisparse.packed_channels(
            patches.flatten(2),
            self.values,
            self.index,
            self.free,
            self.bias,
            self.columns,
            pattern.keep,
            pattern.block,
        )
        result = product.reshape(*product.shape[:2], *patches.shape[2:])
        return result if x.dim() == 4 else result.squeeze(0)

    def _patches(self, x: Tensor) -> Tensor:
        """(images, I, H, W) -> (images, h * w * I, H', W'), kernel positions first."""
        starts = [
            range(0, size * dilation, dilation)
            for size, dilation in zip(self.kernel_size, self.dilation, strict=True)
        ]
        rows, columns = (x.shape[2 + axis] - starts[axis][-1] for axis in range(2))
        views = [
            x[:, :, top : top + rows : self.stride[0], left : left + columns : self.stride[1]]
            for top in starts[0]
            for left in starts[1]
        ]
        return views[0] if len(views) == 1 else torch.cat(views, 1)

    def extra_repr(self) -> str:
        """Sizes, pattern and dtype."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"{self._sizes()}"
        )
