"""Layers that compute with packed weights."""

from __future__ import annotations

from bisparse.nn.packed_linear import PackedLinear

__all__ = ["PackedLinear"]
