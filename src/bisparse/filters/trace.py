"""Which channels of a network hang together, read off its exported graph."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.filters.indices import Dims, Ids, Indices
from bisparse.filters.plan import tensors_of
from bisparse.filters.rules import RULES, pointwise
from bisparse.filters.shape_rules import picked
from bisparse.filters.walk import Cost, Padding, Product, Split, Walk, fixed, shape_of

__all__ = ["Trace", "head_counts", "pads_channels", "trace"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Everything that a removal of channels touches.

    Attributes:
        parameters: numbers of the indices along every dimension of every parameter and buffer in use, by name.
        products: convolutions and linear maps, in the order in which they run.
        costs: multiply-adds per sample.
        paddings: constant channels that modules add.
        splits: where the code divides channels.
        units: number of an index to the number of its unit.
        frozen: unit to the reason why it stays.
    """

    parameters: Mapping[str, Dims]
    products: tuple[Product, ...]
    costs: tuple[Cost, ...]
    paddings: tuple[Padding, ...]
    splits: tuple[Split, ...]
    units: Ids
    frozen: Mapping[int, str]


def pads_channels(module: nn.Module) -> bool:
    """Whether a module says by ``channels_front`` and ``channels_back`` how many constant channels it adds.

    Such numbers are changed with the channels around them; a number written into the code of a ``forward`` cannot be.
    """
    return all(isinstance(getattr(module, name, None), int) for name in ("channels_front", "channels_back"))


_WIDTHS = ("dim", "size", "width", "d_head")


def head_counts(module: nn.Module) -> dict[str, int]:
    """A module's own numbers of heads, by attribute: those whose name has ``head``, and no word for its width."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int and "head" in name and not any(word in name for word in _WIDTHS)
    }


def trace(model: nn.Module, call: Call, frozen: Mapping[str, str] | None = None) -> Trace:
    """Export the model, and follow the indices of every parameter through its operations.

    Equal positions of tensors that are added, normalised, concatenated, repeated or read by a weight are one unit. The
    network's inputs and outputs, whatever meets a dimension of fixed size, and whatever passes through an operation
    that is not known here stays. Nothing is guessed: an unknown operation costs possible savings, never correctness.

    Args:
        model: in any mode; it is traced in evaluation mode.
        call: sample inputs.
        frozen: name of a weight to the reason why its outputs are to stay.

    Raises:
        ValueError: the model cannot run on the inputs, or cannot be exported; the message says why.
    """
    program = _exported(model, call)
    walk = Walk(Indices(), _batch_size(call))
    walk.padding_modules = frozenset(name for name, module in model.named_modules() if pads_channels(module))
    walk.heads = {name: frozenset(head_counts(module).values()) for name, module in model.named_modules()}
    _name_parameters(walk, program, tensors_of(model))
    for node in program.graph.nodes:
        if node.op == "call_function":
            walk.dims[node] = _passed(walk, node)
        elif node.op == "output":
            walk.freeze_all(node, "output of the network")
    _freeze_loose(walk)
    for product in walk.products:
        if frozen and product.weight in frozen:
            walk.indices.freeze(product.outputs, frozen[product.weight])
    units = walk.indices.units()
    return Trace(
        walk.parameters,
        tuple(walk.products),
        tuple(walk.costs),
        tuple(walk.paddings),
        tuple(walk.splits),
        units,
        walk.indices.frozen(units),
    )


def _exported(model: nn.Module, call: Call) -> Any:
    with evaluation_state(model):
        call.run(model)  # says in words where the data do not fit
        try:
            return torch.export.export(model, call.args, dict(call.kwargs), strict=False)
        except Exception as error:  # whatever the exporter meets in a user's code
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{type(model).__name__} cannot be traced by torch.export, so it is not known which channels hang "
                f"together: {reason} (an if on values in forward is the usual cause: move it out of the model)"
            ) from error


def _batch_size(call: Call) -> int:
    """Samples in a call: the first dimension of the first tensor."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() else 1


def _name_parameters(walk: Walk, program: Any, own: Collection[str]) -> None:
    """Numbers for the indices of every parameter and buffer; inputs, and tensors that are neither, have fixed sizes."""
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target}
    known: dict[str, Dims] = walk.parameters
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        name = names.get(node.name)
        if name is None or name not in own:
            walk.dims[node] = fixed(shape_of(node))
            continue
        walk.names[node] = name
        known[name] = tuple(walk.indices.new(size) for size in shape_of(node))
        walk.dims[node] = known[name]


def _passed(walk: Walk, node: fx.Node) -> Any:
    """Numbers of an operation's result."""
    target = node.target
    if getattr(target, "__name__", "") == "getitem":
        return picked(walk, node)
    if not isinstance(target, torch._ops.OpOverload):
        return _unknown(walk, node)
    name = target._schema.name.split("::")[-1]
    rule = RULES.get(name) or RULES.get(name.rstrip("_"))
    if rule is not None:
        return rule(walk, node)
    if torch.Tag.pointwise in target.tags:
        return pointwise(walk, node)
    return _unknown(walk, node)


def _unknown(walk: Walk, node: fx.Node) -> Any:
    walk.freeze_all(node, f"passes through {node.target}, which is not known here")
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return [fixed(shape_of(item)) for item in value]
    return fixed(shape_of(node))


def _freeze_loose(walk: Walk) -> None:
    """Dimensions that no product both writes and reads have nothing to remove."""
    units = walk.indices.units()
    written = np.unique(np.concatenate([units[p.outputs] for p in walk.products] or [units[:0]]))
    read = np.unique(np.concatenate([units[p.inputs] for p in walk.products] or [units[:0]]))
    used = np.intersect1d(written, read)
    for dims in walk.parameters.values():
        for axis in dims:
            if axis is not None:
                walk.indices.freeze(
                    axis[~np.isin(units[axis], used)], "not both written and read by products"
                )
