"""How the numbers of indices pass through operations that only rearrange tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import fx

from bisparse.filters.indices import Axis, Dims, Ids
from bisparse.filters.walk import Padding, Split, Walk, fixed, module_path, shape_of

__all__ = ["SHAPE_RULES", "picked", "reshaped"]


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[slice, slice]]:
    """Cut both shapes into the shortest consecutive pieces of equal products."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second = i, j
        left, i = (old[i], i + 1) if i < len(old) else (1, i)
        right, j = (new[j], j + 1) if j < len(new) else (1, j)
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        blocks.append((slice(first, i), slice(second, j)))
    return blocks


def _only_axis(array: Ids) -> tuple[int, Ids] | None:
    """The one axis that the values depend on, with its values; ``None`` where there are several."""
    for axis in range(array.ndim):
        moved = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        if (moved == moved[:, :1]).all():
            return axis, moved[:, 0].copy()
    return None


def _placed(walk: Walk, node: fx.Node, array: Ids) -> tuple[int, Ids]:
    """Where channels end up in a block of new dimensions; channels that are divided go by whole heads."""
    found = _only_axis(array)
    if found is not None:
        return found
    outer = _heads_axis(walk, node, array.shape)
    heads = np.moveaxis(array, outer, 0).reshape(array.shape[outer], -1)
    walk.indices.join_within(np.ascontiguousarray(heads.T))
    walk.splits.append(Split(array.ravel(), module_path(node), heads[:, 0].copy()))
    return outer, heads[:, 0].copy()


def _heads_axis(walk: Walk, node: fx.Node, shape: Sequence[int]) -> int:
    """The dimension that counts heads when channels are divided into (..., heads, size of a head).

    The last one before the size that is as large as the innermost module says heads are many, as in (3, heads, size)
    of queries, keys and values side by side; else the first.
    """
    for path in reversed(module_path(node)):
        for axis in reversed(range(len(shape) - 1)):
            if shape[axis] > 1 and shape[axis] in walk.heads.get(path, ()):
                return axis
    return next(axis for axis, size in enumerate(shape) if size > 1)


def reshaped(walk: Walk, node: fx.Node, dims: Dims, old: Sequence[int], new: Sequence[int]) -> Dims:
    """Numbers after a reshape: merged dimensions repeat or tile them, divided ones go by whole heads."""
    result = list(fixed(new))
    for before, after in _blocks(old, new):
        sizes = tuple(old[before])
        for offset, axis in enumerate(dims[before]):
            if axis is None:
                continue
            shape = [1] * len(sizes)
            shape[offset] = len(axis)
            array = np.broadcast_to(axis.reshape(shape), sizes).reshape(tuple(new[after]))
            if array.ndim == 0:
                walk.indices.freeze(axis, "a dimension of size 1 is dropped")
                continue
            place, ids = _placed(walk, node, array)
            taken = result[after.start + place]
            if taken is not None:
                walk.indices.freeze(taken, "two dimensions of channels are merged")
                walk.indices.freeze(ids, "two dimensions of channels are merged")
            else:
                result[after.start + place] = ids
    return tuple(result)


def _reshape(walk: Walk, node: fx.Node) -> Dims:
    source = node.args[0]
    return reshaped(walk, node, walk.of(source), shape_of(source), shape_of(node))


def _permuted(dims: Dims, order: Sequence[int]) -> Dims:
    return tuple(dims[axis] for axis in order)


def _permute(walk: Walk, node: fx.Node) -> Dims:
    order: Any = node.args[1]
    dims = walk.of(node.args[0])
    return _permuted(dims, [axis % len(dims) for axis in order])


def _transpose(walk: Walk, node: fx.Node) -> Dims:
    dims = list(walk.of(node.args[0]))
    args: Any = node.args  # the union of all that a node may hold refers to itself
    first, second = (args[1], args[2]) if len(args) > 2 else (0, -1)
    dims[first], dims[second] = dims[second], dims[first]
    return tuple(dims)


def _t(walk: Walk, node: fx.Node) -> Dims:
    return tuple(reversed(walk.of(node.args[0])))


def _expand(walk: Walk, node: fx.Node) -> Dims:
    source, sizes = node.args[0], shape_of(node)
    dims: Dims = (*fixed(sizes[: len(sizes) - len(shape_of(source))]), *walk.of(source))
    old = (*[0] * (len(sizes) - len(shape_of(source))), *shape_of(source))
    result: list[Axis] = []
    for axis, before, after in zip(dims, old, sizes, strict=True):
        if axis is not None and before != after:
            walk.indices.freeze(axis, "one channel is repeated")
        result.append(axis if before == after else None)
    return tuple(result)


def _dimension(node: fx.Node, place: int, default: int = 0) -> int:
    """A dimension given as an argument or keyword, counted from the front of the input."""
    args: Any = node.args
    value: Any = node.kwargs.get("dim")
    if value is None:
        value = args[place] if len(args) > place else default
    source = args[0]
    first = source[0] if isinstance(source, (list, tuple)) else source
    return int(value) % max(len(shape_of(first)), 1)


def _slice(walk: Walk, node: fx.Node) -> Dims:
    dims = list(walk.of(node.args[0]))
    place = _dimension(node, 1)
    axis = dims[place]
    if axis is not None:
        size = len(axis)
        args: Any = node.args
        first, last = [*args[2:4], None, None][:2]
        step = args[4] if len(args) > 4 else 1
        piece = axis[slice(first, last, step)]
        if len(piece) < size:
            walk.splits.append(Split(axis, module_path(node), None))
        dims[place] = piece
    return tuple(dims)


def _select(walk: Walk, node: fx.Node) -> Dims:
    """One entry of a dimension, which must stay where it is."""
    dims = list(walk.of(node.args[0]))
    walk.indices.freeze(dims.pop(_dimension(node, 1)), "one of these channels is picked by its number")
    return tuple(dims)


def _unbind(walk: Walk, node: fx.Node) -> list[Dims]:
    """All entries of a dimension, each by itself, as ``q, k, v = qkv.unbind(2)`` does; their number must stay."""
    dims = list(walk.of(node.args[0]))
    entries: Any = node.meta["val"]
    walk.indices.freeze(dims.pop(_dimension(node, 1)), "these channels are counted by the code")
    return [tuple(dims) for _ in entries]


def _pieces(walk: Walk, node: fx.Node) -> list[Dims]:
    """chunk, split, split_with_sizes: one tensor for each piece."""
    dims, place = walk.of(node.args[0]), _dimension(node, 2)
    outputs: Any = node.meta["val"]
    axis = dims[place]
    sizes = [int(piece.shape[place]) for piece in outputs]
    if axis is None:
        return [dims for _ in sizes]
    walk.splits.append(Split(axis, module_path(node), None))
    cuts = np.split(axis, np.cumsum(sizes)[:-1])
    return [(*dims[:place], cut, *dims[place + 1 :]) for cut in cuts]


def picked(walk: Walk, node: fx.Node) -> Dims:
    """One result of an operation with several."""
    args: Any = node.args
    source, number = args
    found = walk.dims[source]
    dims: Dims = found[number] if isinstance(found, list) else found
    return dims


def _cat(walk: Walk, node: fx.Node) -> Dims:
    sources: Any = node.args[0]
    place, parts = _dimension(node, 1), [walk.of(source) for source in sources]
    result: list[Axis] = []
    for number in range(len(parts[0])):
        axes = [part[number] for part in parts]
        if number == place:
            sizes = [shape_of(source)[place] for source in sources]
            result.append(_joined(walk, axes, sizes))
        else:
            merged = axes[0]
            for axis in axes[1:]:
                merged = walk.indices.join(merged, axis)
            result.append(merged)
    return tuple(result)


def _joined(walk: Walk, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """One axis behind the other; pieces of fixed size get numbers that are never removed."""
    if all(axis is None for axis in axes):
        return None
    pieces = []
    for axis, size in zip(axes, sizes, strict=True):
        piece = walk.indices.new(size) if axis is None else axis
        if axis is None:
            walk.indices.freeze(piece, "part of a concatenation that never changes")
        pieces.append(piece)
    return np.concatenate(pieces)


def _pad(walk: Walk, node: fx.Node) -> Dims:
    """Constant channels in front and behind; they can shrink where the module says how many there are."""
    dims, amounts = list(walk.of(node.args[0])), node.args[1]
    assert isinstance(amounts, (list, tuple))
    mode = node.args[2] if len(node.args) > 2 and isinstance(node.args[2], str) else "constant"
    module = (module_path(node) or ("",))[-1]
    for number in range(len(amounts) // 2):
        place, front, back = len(dims) - 1 - number, amounts[2 * number], amounts[2 * number + 1]
        axis = dims[place]
        assert isinstance(front, int)
        assert isinstance(back, int)
        if axis is None or front == back == 0:
            continue
        if mode != "constant" or min(front, back) < 0:
            walk.indices.freeze(axis, "channels are padded or cropped")
            dims[place] = None
            continue
        padding = Padding(module, walk.indices.new(front), walk.indices.new(back))
        if module in walk.padding_modules:
            walk.paddings.append(padding)
        else:
            for ids in (padding.front, padding.back):
                walk.indices.freeze(ids, "the code pads by a fixed number of channels")
        dims[place] = np.concatenate([padding.front, axis, padding.back])
    return tuple(dims)


SHAPE_RULES: dict[str, Callable[[Walk, fx.Node], Dims | list[Dims]]] = {
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "flatten": _reshape,
    "unflatten": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "permute": _permute,
    "transpose": _transpose,
    "t": _t,
    "numpy_T": _t,
    "expand": _expand,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "chunk": _pieces,
    "split": _pieces,
    "split_with_sizes": _pieces,
    "cat": _cat,
    "concat": _cat,
    "pad": _pad,
    "constant_pad_nd": _pad,
}
