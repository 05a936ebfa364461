"""Solved layers on disk, so that an interrupted compression goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bisparse.compress.layer import SolvedLayer
from bisparse.compress.report import LayerReport
from bisparse.weights import Weight

__all__ = ["LayerStore"]


class LayerStore:
    """One file per solved layer; files of other settings or other weights are ignored and overwritten."""

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._settings = json.dumps(settings, sort_keys=True, default=str)

    def _path(self, weight: Weight) -> Path:
        return self._folder / f"{hashlib.sha256(weight.name.encode()).hexdigest()[:16]}.pt"

    def _fingerprint(self, weight: Weight, pattern: str) -> str:
        values = weight.parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        text = f"{self._settings}|{weight.name}|{pattern}|{tuple(weight.parameter.shape)}|"
        return hashlib.sha256(text.encode() + values).hexdigest()

    def load(self, weight: Weight, pattern: str) -> SolvedLayer | None:
        """The stored solution of this very weight under these very settings, or ``None``."""
        path = self._path(weight)
        if not path.is_file():
            return None
        stored = torch.load(path, map_location=weight.parameter.device, weights_only=True)
        if stored["fingerprint"] != self._fingerprint(weight, pattern):
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
