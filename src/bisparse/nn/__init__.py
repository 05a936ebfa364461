"""Layers that compute with packed weights."""

from __future__ import annotations

from bisparse.nn.all_relu import AllReLU
from bisparse.nn.packed_conv import PackedConv2d
from bisparse.nn.packed_linear import PackedLinear

__all__ = ["AllReLU", "PackedConv2d", "PackedLinear"]
