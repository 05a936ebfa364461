"""What a dense layer may be replaced by: one entry of a table for each kind of sparse layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from bisparse.export.semi_structured import semi_structured_misfit
from bisparse.nn import PackedConv2d, PackedLinear, SparseLinear
from bisparse.pattern import NM

__all__ = ["CANDIDATES", "Candidate", "Mode"]

Mode = Literal["inference", "training"]
DENSEST = 0.35


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kind of sparse layer.

    Attributes:
        name: shown in the table.
        kinds: of layers that it takes; convolutions only where they are named.
        modes: that it is for.
        misfit: (layer, pattern of its weight, mode, mask) -> why it cannot be used, ``""`` where it can.
        build: (layer, pattern, mask) -> the sparse layer, which computes the same function; the layer is not changed.
            What the mask keeps learns, zeros included; the mask may be ``None``: the non-zeros.
    """

    name: str
    kinds: tuple[type[nn.Module], ...]
    modes: tuple[Mode, ...]
    misfit: Callable[[nn.Module, NM, Mode, Tensor | None], str]
    build: Callable[[nn.Module, NM, Tensor | None], nn.Module]

    def concerns(self, layer: nn.Module, mode: Mode) -> bool:
        """Whether this kind of sparse layer is to be asked about a layer at all."""
        kinds = (nn.Conv2d,) if isinstance(layer, nn.Conv2d) else self.kinds
        named = nn.Conv2d in self.kinds if isinstance(layer, nn.Conv2d) else nn.Conv2d not in self.kinds
        return mode in self.modes and named and isinstance(layer, kinds)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _packed_misfit(layer: nn.Module, pattern: NM, mode: Mode, mask: Tensor | None = None) -> str:
    del pattern, mode, mask  # any pattern; training needs a fixed mask, which is what a masked layer has
    weight = _weight(layer)
    if weight.device.type != "cpu":
        return f"packed layers run on the CPU, the weight is on {weight.device}"
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return f"packed products take float32 and bfloat16, not {str(weight.dtype).removeprefix('torch.')}"
    return ""


def _packed_conv_misfit(layer: nn.Module, pattern: NM, mode: Mode, mask: Tensor | None = None) -> str:
    if layer.groups != 1 or layer.padding_mode != "zeros":
        return "only convolutions without groups, padded with zeros, can be packed"
    positions = _weight(layer)[0, 0].numel()
    if positions > 1 and _weight(layer).shape[1] % pattern.block:
        return f"{_weight(layer).shape[1]} input channels are no multiple of {pattern.block}"
    return _packed_misfit(layer, pattern, mode, mask)


def _packed_conv(layer: nn.Module, pattern: NM, mask: Tensor | None = None) -> nn.Module:
    assert isinstance(layer, nn.Conv2d)
    return PackedConv2d.from_conv(layer, pattern, mask)


def _sparse_misfit(layer: nn.Module, pattern: NM, mode: Mode, mask: Tensor | None = None) -> str:
    """Above the limit a dense product always wins, and is not worth timing."""
    del pattern, mode
    weight = _weight(layer)
    if weight.device.type != "cpu":
        return f"sparse layers are fast on the CPU, the weight is on {weight.device}"
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float64):
        return f"sparse products take float32, bfloat16 and float64, not {str(weight.dtype).removeprefix('torch.')}"
    density = int(torch.count_nonzero(weight if mask is None else mask)) / max(1, weight.numel())
    if density > DENSEST:
        return f"{density:.0%} of the weights are kept: sparse layers pay below {DENSEST:.0%}"
    return ""


def _sparse(layer: nn.Module, pattern: NM, mask: Tensor | None = None) -> nn.Module:
    del pattern
    assert isinstance(layer, nn.Linear)
    return SparseLinear.from_linear(layer, mask)


def _tensor_core_misfit(layer: nn.Module, pattern: NM, mode: Mode, mask: Tensor | None = None) -> str:
    weight = _weight(layer)
    if weight.device.type != "cuda":
        return f"2:4 tensor cores need a CUDA device, the weight is on {weight.device}"
    if (pattern.keep, pattern.block) != (2, 4):
        return f"sparse tensor cores know 2:4, not {pattern}"
    if mode == "training":
        from bisparse.kernels.semi_structured_linear import supports

        assert isinstance(layer, nn.Linear)
        kept = weight.detach() != 0 if mask is None else mask
        return supports(layer, 8) or ("" if _is_transposable(kept) else "training needs 2:4t, both ways")
    return semi_structured_misfit(weight.detach())


def _is_transposable(kept: Tensor) -> bool:
    """Whether the columns are 2:4, too."""
    groups = kept.view(kept.shape[0] // 4, 4, kept.shape[1])
    return int(groups.sum(1).max()) <= 2


def _frozen(layer: nn.Module, pattern: NM, mask: Tensor | None = None) -> nn.Module:
    """PyTorch's packed tensor as the weight: packed once, for inference."""
    del pattern, mask
    assert isinstance(layer, nn.Linear)
    sparse = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    with torch.no_grad():
        packed = to_sparse_semi_structured(layer.weight.detach().contiguous())
    sparse.weight, sparse.bias = nn.Parameter(packed, requires_grad=False), layer.bias
    return sparse.train(layer.training)


def _training(layer: nn.Module, pattern: NM, mask: Tensor | None = None) -> nn.Module:
    """The same parameters, products on tensor cores both ways, values repacked at every step."""
    from bisparse.kernels.semi_structured_linear import SemiStructuredLinear

    del pattern
    assert isinstance(layer, nn.Linear)
    return SemiStructuredLinear.from_linear(layer, mask, pattern="2:4t")


# A candidate is asked only about layers of its kind, in its modes.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate("packed", (nn.Module,), ("inference", "training"), _packed_misfit, PackedLinear.from_linear),
    Candidate("packed", (nn.Conv2d,), ("inference", "training"), _packed_conv_misfit, _packed_conv),
    Candidate("2:4 tensor cores", (nn.Linear,), ("inference",), _tensor_core_misfit, _frozen),
    Candidate("2:4t tensor cores", (nn.Linear,), ("training",), _tensor_core_misfit, _training),
    Candidate("sparse", (nn.Linear,), ("inference", "training"), _sparse_misfit, _sparse),
)
