"""Packed and sparse matrices, and products with them."""

from __future__ import annotations

from bisparse.kernels.packed import PackedMatrix, pack_matrix
from bisparse.kernels.products import multiply, multiply_channels, multiply_transposed, value_gradient
from bisparse.kernels.sparse_index import SparseIndex
from bisparse.kernels.sparse_products import sparse_gradient, sparse_multiply

__all__ = [
    "PackedMatrix",
    "SparseIndex",
    "multiply",
    "multiply_channels",
    "multiply_transposed",
    "pack_matrix",
    "sparse_gradient",
    "sparse_multiply",
    "value_gradient",
]
