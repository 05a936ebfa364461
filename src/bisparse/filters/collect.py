"""Sensitivities of all layers, gathered while calibration samples run through the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.compress.inputs import flat_samples
from bisparse.filters.indices import Ids
from bisparse.filters.sensitivity import KernelReduction, channel_sensitivity
from bisparse.filters.trace import Trace
from bisparse.filters.walk import Product

__all__ = [
    "LayerShares",
    "check_finite",
    "collect_shares",
    "input_pieces",
    "layer_inputs",
    "layer_weight",
    "running_readers",
]

_ENTRIES = 2**21  # of unfolded windows: what stays in the cache of one core
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True, eq=False)
class LayerShares:
    """Sensitivities of the units that one layer reads.

    Attributes:
        units: their numbers.
        first: (units,) sensitivity over the samples that decide.
        second: (units,) over samples set apart; zeros where there are none.
    """

    units: Ids
    first: Tensor
    second: Tensor


def layer_weight(module: nn.Module, weight: Tensor) -> Tensor:
    """(O, C, K) view of a weight: outputs, inputs per group, kernel positions."""
    if isinstance(module, _CONVS):
        return weight.flatten(2)
    return (weight if isinstance(module, nn.Linear) else weight.t()).unsqueeze(2)


def layer_inputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """(C, K, P): what every weight is multiplied with, at the positions of all samples."""
    if not isinstance(module, _CONVS):
        return inputs.reshape(-1, inputs.shape[-1]).t().unsqueeze(1)
    spatial = len(module.kernel_size)
    inputs = inputs if inputs.dim() == spatial + 2 else inputs.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    for axis, (size, step, gap) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        windows = windows.unfold(2 + axis, (size - 1) * gap + 1, step)[..., ::gap]
    # (N, C, *positions, *kernel) -> (C, kernel, N * positions)
    order = (1, *range(2 + spatial, 2 + 2 * spatial), 0, *range(2, 2 + spatial))
    kernel = int(np.prod(module.kernel_size))
    return windows.permute(order).reshape(windows.shape[1], kernel, -1)


def input_pieces(module: nn.Module, inputs: Tensor, valid: Tensor | None = None) -> Iterator[Tensor]:
    """:func:`layer_inputs` in float32, some samples of a convolution at a time; padding tokens are left out.

    Args:
        module: a convolution, ``nn.Linear`` or transformers' ``Conv1D``.
        inputs: of one call.
        valid: (batch, tokens), False at padding tokens; ``None`` = every position counts.
    """
    if not isinstance(module, _CONVS):
        yield layer_inputs(module, flat_samples(inputs.detach(), valid)).float()
    elif inputs.dim() < len(module.kernel_size) + 2:
        yield layer_inputs(module, inputs.detach()).float()
    else:
        size = max(1, inputs[0].numel() * math.prod(module.kernel_size))
        for piece in torch.split(inputs.detach(), max(1, _ENTRIES // size)):
            yield layer_inputs(module, piece).float()


def check_finite(inputs: Tensor, name: str) -> None:
    """Refuse inputs of a layer that say nothing.

    Raises:
        ValueError: NaN or infinity.
    """
    if not bool(inputs.isfinite().all()):
        raise ValueError(f"the inputs of {name} are not finite: check the calibration data and the weights")


class _Layer:
    """Running maxima of one product."""

    def __init__(self, modules: Sequence[nn.Module], weight: Tensor, product: Product, units: Ids) -> None:
        self.modules, self.groups = modules, product.groups
        self.weight = layer_weight(modules[0], weight.detach()).float()
        per_channel = units[product.inputs]
        self.units, inverse = np.unique(per_channel, return_inverse=True)
        order, counts = np.argsort(inverse, kind="stable"), np.bincount(inverse)
        slots = np.full((len(self.units), counts.max()), -1)
        for place, piece in enumerate(np.split(order, np.cumsum(counts)[:-1])):
            slots[place, : len(piece)] = piece
        self.slots = torch.from_numpy(slots)  # (units, channels of the largest), -1: none
        self.called = False
        self.shares = [torch.zeros(len(self.units)), torch.zeros(len(self.units))]

    def add(self, windows: Tensor, part: int, reduction: KernelReduction) -> None:
        """Take up inputs of one call."""
        self.called = True
        outputs, channels = len(self.weight) // self.groups, self.weight.shape[1]
        for group in range(self.groups):
            weight = self._by_unit(self.weight[group * outputs : (group + 1) * outputs], 1)
            own = self._by_unit(windows[group * channels : (group + 1) * channels], 0)
            found = channel_sensitivity(weight, own, reduction).cpu()
            self.shares[part] = torch.maximum(self.shares[part], found)

    def _by_unit(self, tensor: Tensor, axis: int) -> Tensor:
        """Channels and kernel positions of a unit side by side; missing slots are zero."""
        if self.slots.shape[1] == 1:
            return tensor.index_select(axis, self.slots[:, 0].to(tensor.device))
        slots = self.slots.to(tensor.device)
        picked = tensor.index_select(axis, slots.clamp(min=0).flatten())
        sizes = (*tensor.shape[:axis], *slots.shape, *tensor.shape[axis + 1 :])
        shape = [1] * len(sizes)
        shape[axis], shape[axis + 1] = slots.shape
        present: Tensor = picked.reshape(sizes) * (slots >= 0).view(shape)
        return present.flatten(axis + 1, axis + 2)


def collect_shares(
    model: nn.Module,
    trace: Trace,
    parts: Sequence[Iterable[Call]],
    *,
    reduction: KernelReduction = "sum",
) -> Mapping[Product, LayerShares]:
    """Run calibration samples, and keep the largest share of every unit in every layer that reads it.

    Args:
        model: runs in evaluation mode, on its device.
        trace: of this model.
        parts: one or two sequences of calls: those that decide, and those that check them.
        reduction: over kernel positions.

    Returns:
        For every product that reads units which may be removed and whose module is called; padding tokens do not
        count. Memory: running maxima, and some windows.

    Raises:
        ValueError: activations that are not finite.
    """
    layers = _layers(model, trace)
    part = 0
    valid: Tensor | None = None

    def watch(layer: _Layer, name: str) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            check_finite(args[0], name)
            for windows in input_pieces(module, args[0], valid):
                layer.add(windows, part, reduction)

        return hook

    handles = [
        module.register_forward_pre_hook(watch(layer, product.weight))  # type: ignore[arg-type]
        for product, layer in layers.items()
        for module in layer.modules
    ]
    try:
        with evaluation_state(model):
            for part, calls in enumerate(parts):  # noqa: B007
                for call in calls:
                    valid = call.valid
                    call.run(model)
    finally:
        for handle in handles:
            handle.remove()
    return {
        product: LayerShares(layer.units, *layer.shares) for product, layer in layers.items() if layer.called
    }


def running_readers(model: nn.Module, products: Iterable[Product], call: Call) -> set[str]:
    """Weights among these whose inputs can be watched: those of convolutions and linear layers that are called.

    A weight that other code takes out of its module is multiplied with tensors that no hook sees.
    """
    seen: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=product.weight: seen.add(name))
        for product in products
        for module in _known_modules(model, product)
    ]
    try:
        with evaluation_state(model):
            call.run(model)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _known_modules(model: nn.Module, product: Product) -> list[nn.Module]:
    """The convolutions or linear layers whose weight this is: several where it is tied."""
    weight = model.get_parameter(product.weight)
    modules = [module for module in model.modules() if getattr(module, "weight", None) is weight]
    return [m for m in modules if isinstance(m, (nn.Linear, *_CONVS)) or hasattr(m, "nf")]


def _layers(model: nn.Module, trace: Trace) -> dict[Product, _Layer]:
    found: dict[Product, _Layer] = {}
    seen: set[str] = set()
    for product in trace.products:
        removable = any(unit not in trace.frozen for unit in trace.units[product.inputs].tolist())
        if product.depthwise or not removable or product.weight in seen:
            continue
        seen.add(product.weight)
        modules = _known_modules(model, product)
        if not modules:
            continue
        found[product] = _Layer(modules, model.get_parameter(product.weight), product, trace.units)
    return found
