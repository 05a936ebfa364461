"""Layers that compute with packed and with sparse weights."""

from __future__ import annotations

from bisparse.nn.all_relu import AllReLU
from bisparse.nn.packed_conv import PackedConv2d
from bisparse.nn.packed_linear import PackedLinear
from bisparse.nn.sparse_average import averaged_model
from bisparse.nn.sparse_edges import replace_edges_
from bisparse.nn.sparse_linear import SparseLinear
from bisparse.nn.sparse_mlp import SparseMLP
from bisparse.nn.sparse_recorder import GradientRecorder
from bisparse.nn.sparse_topology import EdgeChange, prune_neurons_, rigl_step_, set_step_

__all__ = [
    "AllReLU",
    "EdgeChange",
    "GradientRecorder",
    "PackedConv2d",
    "PackedLinear",
    "SparseLinear",
    "SparseMLP",
    "averaged_model",
    "prune_neurons_",
    "replace_edges_",
    "rigl_step_",
    "set_step_",
]
