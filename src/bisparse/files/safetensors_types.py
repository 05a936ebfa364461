"""The number types of the safetensors format, and PyTorch's."""

from __future__ import annotations

import torch

__all__ = ["BITS", "dtype_name", "torch_dtype"]

# Bits of one element.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_TORCH = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _TORCH.items()}


def torch_dtype(name: str) -> torch.dtype | None:
    """PyTorch's type for a name of the format; ``None`` where PyTorch has none (``F4``, ``F6_*``)."""
    return _TORCH.get(name)


def dtype_name(dtype: torch.dtype) -> str:
    """The format's name of a PyTorch type.

    Raises:
        ValueError: the format has no such type (quantised, complex128).
    """
    if dtype not in _NAMES:
        raise ValueError(
            f"safetensors has no type for {dtype}: write a .pt file, or convert the tensor first"
        )
    return _NAMES[dtype]
