"""What a walk over a traced network collects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from bisparse.filters.indices import Axis, Dims, Ids, Indices

__all__ = ["Cost", "Padding", "Product", "Split", "Walk", "module_path", "shape_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A convolution or linear map with a weight of the model.

    Attributes:
        weight: dotted name of the weight.
        outputs: numbers of the weight's output dimension.
        inputs: numbers of the weight's input dimension (per group for grouped convolutions).
        groups: of a convolution; 1 otherwise.
        positions: output positions per sample.
    """

    weight: str
    outputs: Ids
    inputs: Ids
    groups: int
    positions: float

    @property
    def depthwise(self) -> bool:
        """Whether every output reads one channel only, so that shares say nothing."""
        return self.groups > 1 and len(self.inputs) == 1


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """Multiply-adds per sample: a factor times the number of kept indices along each axis."""

    factor: float
    axes: tuple[Ids, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Padding:
    """Constant channels that a module adds in front of and behind its input's."""

    module: str
    front: Ids
    back: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Channels that the code divides: into heads (``parts`` of them, all of equal size) or into pieces.

    Whether the code goes on working with fewer of them is only known by trying.

    Attributes:
        ids: the channels.
        modules: dotted names of the modules whose code divides, innermost last.
        parts: numbers of the heads; ``None`` for pieces.
    """

    ids: Ids
    modules: tuple[str, ...]
    parts: Ids | None


@dataclass(slots=True, eq=False)
class Walk:
    """State of a walk: numbers per tensor, and everything found so far."""

    indices: Indices
    batch: int
    names: dict[fx.Node, str] = field(default_factory=dict)
    dims: dict[fx.Node, Any] = field(default_factory=dict)
    parameters: dict[str, Dims] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    paddings: list[Padding] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    padding_modules: frozenset[str] = frozenset()
    heads: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Module to the numbers that its attributes for heads hold."""

    def of(self, value: Any) -> Dims:
        """Numbers of a node's tensor; a plain tensor or number has none."""
        if isinstance(value, fx.Node):
            dims: Dims = self.dims[value]
            return dims
        return ()

    def freeze_all(self, node: fx.Node, reason: str) -> None:
        """Nothing that this node reads is ever removed."""
        for source in node.all_input_nodes:
            found = self.dims[source]
            for dims in found if isinstance(found, list) else [found]:
                for axis in dims:
                    self.indices.freeze(axis, reason)

    def add_product(self, weight: Any, outputs: Ids, inputs: Ids, groups: int, size: Sequence[int]) -> None:
        """A product with a named weight; ``size``: of its output without channels."""
        name = self.names.get(weight)
        positions = math.prod(size) / self.batch
        kernel = math.prod(shape_of(weight)[2:])
        self.costs.append(Cost(positions * kernel, (outputs, inputs)))
        if name is not None:
            self.products.append(Product(name, outputs, inputs, groups, positions))


def shape_of(value: Any) -> tuple[int, ...]:
    """Shape of a node's tensor; empty for numbers."""
    known = value.meta.get("val") if isinstance(value, fx.Node) else value
    return tuple(int(size) for size in known.shape) if isinstance(known, Tensor) else ()


def module_path(node: fx.Node) -> tuple[str, ...]:
    """Dotted names of the modules whose code this node comes from, innermost last."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(str(path) for path, _ in stack.values())


def fixed(shape: Sequence[int]) -> Dims:
    """A tensor of which no dimension ever changes."""
    axes: list[Axis] = [None] * len(shape)
    return tuple(axes)
