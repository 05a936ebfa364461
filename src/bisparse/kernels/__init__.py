"""Packed matrices and products with them."""

from __future__ import annotations

from bisparse.kernels.packed import PackedMatrix, pack_matrix
from bisparse.kernels.products import multiply, multiply_channels, multiply_transposed, value_gradient

__all__ = [
    "PackedMatrix",
    "multiply",
    "multiply_channels",
    "multiply_transposed",
    "pack_matrix",
    "value_gradient",
]
