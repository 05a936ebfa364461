"""Solved layers on disk, so that an interrupted compression goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bisparse.compress.layer import SolvedLayer
from bisparse.compress.report import LayerReport
from bisparse.weights import Weight

__all__ = ["LayerStore", "digest"]

_LOG = logging.getLogger(__name__)


def digest(value: Any) -> str:
    """Hash of tensors, arrays and plain values in nested mappings and sequences; other objects count by name."""
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _parts(item)
    elif isinstance(value, (tuple, list)):
        yield f"[{len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif value is None or isinstance(value, (str, int, float)):
        yield repr(value).encode()
    else:
        yield str(getattr(value, "__qualname__", type(value).__qualname__)).encode()


class LayerStore:
    """One file per solved layer; files made under other settings are ignored and overwritten.

    Args:
        folder: made where it is missing.
        settings: everything that a layer's solution depends on.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._settings = json.dumps(settings, sort_keys=True, default=str)

    def _path(self, weight: Weight) -> Path:
        return self._folder / f"{hashlib.sha256(weight.name.encode()).hexdigest()[:16]}.pt"

    def _fingerprint(self, weight: Weight, pattern: str) -> str:
        text = f"{self._settings}|{weight.name}|{pattern}|{tuple(weight.parameter.shape)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, weight: Weight, pattern: str) -> SolvedLayer | None:
        """The stored solution of this very weight under these very settings, or ``None``."""
        path = self._path(weight)
        if not path.is_file():
            return None
        stored = torch.load(path, map_location=weight.parameter.device, weights_only=True)
        if stored["fingerprint"] != self._fingerprint(weight, pattern):
            _LOG.warning("%s: stored for another model, other data or settings; solved anew", weight.name)
            return None
        report = LayerReport(**(stored["report"] | {"shape": tuple(stored["report"]["shape"])}))
        return SolvedLayer(stored["values"], stored["mask"], stored["bias"], report)

    def save(self, weight: Weight, pattern: str, solved: SolvedLayer) -> None:
        """Write one layer; the file appears complete or not at all."""
        path = self._path(weight)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        content = {
            "fingerprint": self._fingerprint(weight, pattern),
            "values": solved.values,
            "mask": solved.mask,
            "bias": solved.bias,
            "report": asdict(solved.report),
        }
        torch.save(content, partial)
        partial.replace(path)
