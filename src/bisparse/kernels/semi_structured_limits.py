"""What PyTorch's 2:4 kernels can take, in words, and which of their backends fits a weight."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from bisparse.masks.solve import solve_mask

__all__ = ["BACKENDS", "choose_backend", "device_misfit", "misfit", "supports", "tile_is_cusparselt"]

# Backend -> multiple that both sizes of a weight must have when it is packed in both directions:
# "cutlass"     tiles of 32 x 64 each way; the pattern is packed once, values are gathered by it at every step
# "cusparselt"  PyTorch's tile kernel writing cuSPARSELt's layout: 128 x 128, where that layout is the library's own
# "compress"    cuSPARSELt's own packing, twice: 16 x 16, slow to pack
BACKENDS = {"cusparselt": 128, "cutlass": 64, "compress": 16}
_TYPES = (torch.float16, torch.bfloat16)
_FORWARD_ONLY = "compress"


def misfit(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, backend: str) -> str | None:
    """Why a backend cannot hold a weight of this shape and type, with the remedy; None where it can. Needs no GPU.

    Raises:
        ValueError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    name = str(dtype).removeprefix("torch.")
    if dtype not in _TYPES:
        return f"type {name}: 2:4 products take float16 and bfloat16; convert the model or use autocast"
    if len(shape) != 2:
        return f"shape {tuple(shape)}: a weight must have two dimensions"
    unit = BACKENDS[backend]
    if shape[0] % unit or shape[1] % unit or 0 in shape:
        return (
            f"shape {tuple(shape)}: {backend} needs both sizes to be positive multiples of {unit}; "
            "pad the layer, or leave it dense"
        )
    return None


def device_misfit(device: torch.device, backend: str) -> str | None:
    """Why a backend cannot run on a device; None where it can."""
    if device.type != "cuda":
        return f"the weight is on {device}: 2:4 products need an NVIDIA GPU; model.cuda() first"
    if torch.version.hip is not None:
        return "this PyTorch is built for AMD GPUs: its 2:4 kernels are NVIDIA's"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"compute capability {major}.{minor}: sparse tensor cores begin at 8.0"
    if backend == "cutlass" and major > 9:
        return f"compute capability {major}.{minor}: PyTorch's CUTLASS 2:4 kernels end at 9.x; use cuSPARSELt"
    if backend != "cutlass" and not torch.backends.cusparselt.is_available():
        return (
            "this PyTorch lacks cuSPARSELt: install a CUDA build of 2.5 or later that has it, or use CUTLASS"
        )
    if backend == "cusparselt" and not tile_is_cusparselt(device):
        return "PyTorch's tile kernel writes another layout than this device's cuSPARSELt: use cutlass or compress"
    return None


def choose_backend(
    shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: torch.device, *, both_ways: bool = True
) -> tuple[str | None, str]:
    """The first backend that fits and, where none does, why not: one reason per backend."""
    reasons = {}
    for backend in BACKENDS if both_ways else (_FORWARD_ONLY,):
        reason = misfit(shape, dtype, backend) or device_misfit(device, backend)
        if reason is None:
            return backend, ""
        reasons[backend] = reason
    return None, "; ".join(dict.fromkeys(reasons.values()))


def supports(
    linear: nn.Linear, tokens: int, dtype: torch.dtype | None = None, *, both_ways: bool = True
) -> str | None:
    """Why a linear layer cannot run as :class:`SemiStructuredLinear`; None where it can.

    Args:
        linear: with a dense weight that is already masked.
        tokens: rows of the input; they are padded to a multiple of 8.
        dtype: of the products; by default the weight's (under autocast, the autocast type).
        both_ways: pattern 2:4t, forward and input gradient; otherwise row-wise 2:4, forward only.
    """
    weight = linear.weight
    if type(weight.data) is not Tensor and not isinstance(weight, nn.Parameter):
        return f"the weight is a {type(weight).__name__}: only dense weights are packed"
    if tokens < 1:
        return "no tokens: nothing to multiply"
    backend, reason = choose_backend(weight.shape, dtype or weight.dtype, weight.device, both_ways=both_ways)
    return None if backend else reason


def tile_is_cusparselt(device: torch.device) -> bool:
    """Whether PyTorch's tile kernel packs as this device's cuSPARSELt does.

    Its layout was found by looking at Ampere GPUs; later GPUs and versions of the library may differ, which would give
    wrong products and no error. So both pack one random matrix, once per device, and every byte is compared.
    """
    return _tile_is_cusparselt(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache(maxsize=32)
def _tile_is_cusparselt(index: int) -> bool:
    device = torch.device("cuda", index)
    scores = torch.rand(256, 384, generator=torch.Generator().manual_seed(0)) + 0.1
    weight = (scores * solve_mask(scores, "2:4t").mask).to(device, torch.float16)
    try:
        packed, _, packed_t, _, _ = torch._sparse_semi_structured_tile(
            weight, "largest_abs_values_greedy", use_cutlass=False
        )
        expected, expected_t = torch._cslt_compress(weight), torch._cslt_compress(weight.t().contiguous())
    except RuntimeError:  # the library does not know the device
        return False
    return _same_bytes(packed, expected) and _same_bytes(packed_t, expected_t)


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    return a.numel() == b.numel() and torch.equal(
        a.reshape(-1).view(torch.int16), b.reshape(-1).view(torch.int16)
    )
