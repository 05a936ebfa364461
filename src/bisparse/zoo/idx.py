"""The idx format of MNIST: a magic number, the sizes, then the bytes; often gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> Tensor:
    """The array in an idx file, gzipped or not.

    Returns:
        A tensor of the file's type and shape.

    Raises:
        ValueError: not an idx file, or shorter than it says.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file format.
    """
    path = Path(path)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ValueError(
            f"{path} is no idx file: it begins with {content[:4].hex()}, not with 0000 and a type"
        )
    dtype, dimensions = np.dtype(_TYPES[content[2]]), content[3]
    begin = 4 + 4 * dimensions
    sizes = struct.unpack(f">{dimensions}I", content[4:begin])
    expected = int(np.prod(sizes)) * dtype.itemsize
    if len(content) - begin != expected:
        raise ValueError(f"{path}: sizes {sizes} need {expected} bytes, but {len(content) - begin} follow")
    array = np.frombuffer(content, dtype, offset=begin).reshape(sizes)
    return torch.from_numpy(array.astype(dtype.newbyteorder("=")))
