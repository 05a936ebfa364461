"""How the numbers of indices pass through operations that compute."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import fx

from bisparse.filters.indices import Axis, Dims, Ids
from bisparse.filters.shape_rules import SHAPE_RULES
from bisparse.filters.walk import Cost, Walk, fixed, shape_of

__all__ = ["RULES", "Rule", "pointwise"]

Rule: TypeAlias = "Callable[[Walk, fx.Node], Dims | list[Dims]]"

_MIXED = "an operation mixes these channels"


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)


def pointwise(walk: Walk, node: fx.Node) -> Dims:
    """Tensors combined entry by entry, with broadcasting: equal positions go together."""
    size = shape_of(node)
    sources = [source for source in node.all_input_nodes if shape_of(source)]
    result: list[Axis] = []
    for back in range(len(size), 0, -1):
        axes: list[Axis] = []
        for source in sources:
            shape, dims = shape_of(source), walk.of(source)
            if len(shape) < back:
                continue
            if shape[-back] == size[-back]:
                axes.append(dims[-back])
            else:
                walk.indices.freeze(dims[-back], "one channel meets many")
        merged: Axis = axes[0] if axes else None
        for axis in axes[1:]:
            merged = walk.indices.join(merged, axis)
        result.append(merged)
    return tuple(result)


def _same(walk: Walk, node: fx.Node) -> Dims:
    return walk.of(node.args[0])


def _vector(walk: Walk, axis: Axis, vector: Any) -> None:
    """A bias, a scale: one number per channel."""
    if isinstance(vector, fx.Node):
        walk.indices.join(axis, walk.of(vector)[0])


def _linear(walk: Walk, node: fx.Node) -> Dims:
    x, weight = walk.of(node.args[0]), walk.of(node.args[1])
    return _product(walk, node, x, weight[0], weight[1], node.args[1], _argument(node, 2, "bias"))


def _product(walk: Walk, node: fx.Node, x: Dims, outputs: Axis, inputs: Axis, weight: Any, bias: Any) -> Dims:
    """(..., inputs) times a weight: (..., outputs)."""
    _vector(walk, outputs, bias)
    if outputs is None or inputs is None:
        return _computed(walk, node, weight, (*x[:-1], None), shape_of(node)[:-1])
    walk.indices.join(x[-1], inputs)
    walk.add_product(weight, outputs, inputs, 1, shape_of(node)[:-1])
    return (*x[:-1], outputs)


def _addmm(walk: Walk, node: fx.Node) -> Dims:
    """``bias + x @ weight``, as transformers' Conv1D computes."""
    x, weight = walk.of(node.args[1]), walk.of(node.args[2])
    return _product(walk, node, x, weight[1], weight[0], node.args[2], node.args[0])


def _convolution(walk: Walk, node: fx.Node) -> Dims:
    x, weight = walk.of(node.args[0]), walk.of(node.args[1])
    spatial = len(weight) - 2
    groups = _argument(node, 6, "groups", 1)
    outputs, inputs = weight[0], weight[1]
    channel = len(x) - spatial - 1
    for axis in (*weight[2:], *x[channel + 1 :]):
        walk.indices.freeze(axis, "kernel positions")
    _vector(walk, outputs, _argument(node, 2, "bias"))
    size = list(shape_of(node))
    del size[channel]
    if outputs is None or inputs is None:
        return _computed(walk, node, node.args[1], (*x[:channel], None, *fixed(size[channel:])), size)
    _couple_groups(walk, x[channel], outputs, inputs, groups)
    walk.add_product(node.args[1], outputs, inputs, groups, size)
    return (*x[:channel], outputs, *fixed(size[channel:]))


def _computed(walk: Walk, node: fx.Node, weight: Any, dims: Dims, size: Sequence[int]) -> Dims:
    """A product with a weight that is itself computed, by an operation that hides its channels: all of them stay."""
    walk.freeze_all(node, "the weight that meets these channels is computed")
    walk.costs.append(Cost(math.prod(size) * math.prod(shape_of(weight)) / walk.batch, ()))
    return dims


def _couple_groups(walk: Walk, x: Axis, outputs: Ids, inputs: Ids, groups: int) -> None:
    """Depthwise: a channel goes with its outputs. Grouped: equal positions of all groups go together."""
    if groups == 1:
        walk.indices.join(x, inputs)
        return
    if len(inputs) == 1:
        walk.indices.freeze(inputs, "the one input of a depthwise filter")
        rows = outputs.reshape(groups, -1)
        for column in range(rows.shape[1]):
            walk.indices.join(x, rows[:, column])
        return
    if x is None:
        walk.indices.freeze(inputs, "reads the network's input")
    else:
        for row in x.reshape(groups, -1):
            walk.indices.join(row, inputs)
    walk.indices.join_within(outputs.reshape(groups, -1))


def _batch_norm(walk: Walk, node: fx.Node) -> Dims:
    dims = walk.of(node.args[0])
    for vector in node.args[1:5]:
        _vector(walk, dims[1], vector)
    return dims


def _norm_of_last(walk: Walk, node: fx.Node) -> Dims:
    """Layer norm and its kin: every channel changes all others, so none may go."""
    dims: list[Axis] = list(walk.of(node.args[0]))
    sizes: Any = node.args[1]
    for place in range(len(dims) - len(sizes), len(dims)):
        walk.indices.freeze(dims[place], "a layer norm mixes these channels")
    for vector in node.args[2:4]:
        for axis in walk.of(vector):
            walk.indices.freeze(axis, "a layer norm mixes these channels")
    return tuple(dims)


def _group_norm(walk: Walk, node: fx.Node) -> Dims:
    walk.freeze_all(node, "a group norm mixes these channels")
    return walk.of(node.args[0])


def _pool(walk: Walk, node: fx.Node) -> Dims | list[Dims]:
    """Batch and channels stay; pixels change."""
    dims, value = walk.of(node.args[0]), node.meta["val"]
    found = re.search(r"(\d)d", str(node.target))
    spatial = int(found[1]) if found else 2
    kept = len(dims) - spatial
    for axis in dims[kept:]:
        walk.indices.freeze(axis, "pixels")
    result = (*dims[:kept], *fixed(range(spatial)))
    return [result, result] if isinstance(value, (tuple, list)) else result


def _reduce(walk: Walk, node: fx.Node) -> Dims | list[Dims]:
    """Means, sums, maxima: whatever is reduced over may not change. The maximum of two tensors reduces nothing."""
    if str(node.target).endswith(".other"):
        return pointwise(walk, node)
    dims = list(walk.of(node.args[0]))
    chosen = _argument(node, 1, "dim", None)
    keep = _argument(node, 2, "keepdim", False)
    numbers = range(len(dims)) if chosen is None or chosen == [] else chosen
    places = {n % max(len(dims), 1) for n in ([numbers] if isinstance(numbers, int) else numbers)}
    for place in places:
        walk.indices.freeze(dims[place], _MIXED)
    result = tuple(None if p in places else axis for p, axis in enumerate(dims) if keep or p not in places)
    return [result, result] if isinstance(node.meta["val"], (tuple, list)) else result


def _along(walk: Walk, node: fx.Node) -> Dims:
    """Softmax, cumulative sums: shape kept, one dimension mixed."""
    dims = walk.of(node.args[0])
    walk.indices.freeze(dims[_argument(node, 1, "dim")], _MIXED)
    return dims


def _matmul(walk: Walk, node: fx.Node) -> Dims:
    first, second = node.args[0], node.args[1]
    a, b = walk.of(first), walk.of(second)
    if second in walk.names and len(b) == 2 and b[1] is not None:
        return _product(walk, node, a, b[1], b[0], second, None)
    if len(a) < 2 or len(b) < 2:
        walk.freeze_all(node, "a product with a vector")
        return fixed(shape_of(node))
    walk.indices.join(a[-1], b[-2])
    batch = _batch(walk, [(a[:-2], shape_of(first)[:-2]), (b[:-2], shape_of(second)[:-2])])
    _cost(
        walk, (*batch, a[-2], a[-1], b[-1]), (*shape_of(node)[:-1], shape_of(first)[-1], shape_of(node)[-1])
    )
    return (*batch, a[-2], b[-1])


def _batch(walk: Walk, operands: Sequence[tuple[Dims, Sequence[int]]]) -> Dims:
    """Leading dimensions of a batched product, broadcast."""
    result: list[Axis] = []
    for back in range(max(len(dims) for dims, _ in operands), 0, -1):
        present = [(dims[-back], sizes[-back]) for dims, sizes in operands if len(dims) >= back]
        widest = max(size for _, size in present)
        axes = [axis for axis, size in present if size == widest]
        for axis, size in present:
            if size != widest:
                walk.indices.freeze(axis, "one channel meets many")
        merged = axes[0]
        for axis in axes[1:]:
            merged = walk.indices.join(merged, axis)
        result.append(merged)
    return tuple(result)


def _cost(walk: Walk, axes: Sequence[Axis], sizes: Sequence[int]) -> None:
    rest = math.prod(size for axis, size in zip(axes, sizes, strict=True) if axis is None)
    walk.costs.append(Cost(rest / walk.batch, tuple(axis for axis in axes if axis is not None)))


def _attention(walk: Walk, node: fx.Node) -> Dims:
    """Scaled dot-product attention: heads go together, the width of a head is fixed by its scale."""
    sources = list(node.args[:3])
    q, k, v = (walk.of(source) for source in sources)
    sizes = [shape_of(source) for source in sources]
    for axis in (q[-2], k[-2], v[-2], q[-1], k[-1]):
        walk.indices.freeze(axis, "scaled by the width of a head")
    for axis in walk.of(_argument(node, 3, "attn_mask")):
        walk.indices.freeze(axis, "part of an attention mask")
    if len({size[:-2] for size in sizes}) > 1:
        walk.freeze_all(node, "queries and keys have different numbers of heads")
        return fixed(shape_of(node))
    batch = _batch(walk, [(d[:-2], s[:-2]) for d, s in zip((q, k, v), sizes, strict=True)])
    scores = (*sizes[0][:-1], sizes[1][-2])
    _cost(walk, (*batch, None, None, None), (*scores, sizes[0][-1]))
    _cost(walk, (*batch, None, None, v[-1]), (*scores, sizes[2][-1]))
    return (*batch, None, v[-1])


def _embedding(walk: Walk, node: fx.Node) -> Dims:
    weight = walk.of(node.args[0])
    walk.indices.freeze(weight[0], "words of an embedding")
    return (*fixed(shape_of(node.args[1])), weight[1])


def _prelu(walk: Walk, node: fx.Node) -> Dims:
    dims, slope = walk.of(node.args[0]), walk.of(node.args[1])
    if shape_of(node.args[1]) == (1,):
        walk.indices.freeze(slope[0], "one slope for all channels")
    else:
        walk.indices.join(dims[1], slope[0])
    return dims


def _glu(walk: Walk, node: fx.Node) -> Dims:
    """The first half of the channels times the sigmoid of the second."""
    dims = list(walk.of(node.args[0]))
    place = _argument(node, 1, "dim", -1) % len(dims)
    axis = dims[place]
    if axis is not None:
        value, gate = np.split(axis, 2)
        dims[place] = walk.indices.join(value, gate)
    return tuple(dims)


_UNARY: tuple[str, ...] = (
    *("dropout", "dropout_", "feature_dropout", "native_dropout", "contiguous", "detach", "detach_", "alias"),
    *("to", "_to_copy", "type_as", "lift_fresh_copy", "relu6", "hardtanh", "selu", "celu", "mish"),
    *("hardswish", "log_sigmoid", "zeros_like", "ones_like", "_assert_tensor_metadata"),
)
_POOLS: tuple[str, ...] = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d"),
    *("max_pool2d_with_indices", "upsample_nearest2d", "upsample_bilinear2d"),
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "cumsum"), _along),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("layer_norm", "rms_norm"), _norm_of_last),
    **SHAPE_RULES,
    "linear": _linear,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
    "embedding": _embedding,
    "glu": _glu,
    "prelu": _prelu,
}
