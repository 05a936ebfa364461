"""Small checkpoints for the tests of the files room."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = Mapping[str, Tensor]


@pytest.fixture
def mlp() -> dict[str, Tensor]:
    """Two hidden layers, a classifier, biases and a counter."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "fc1.weight": random(24, 16),
        "fc1.bias": random(24),
        "fc2.weight": random(32, 24),
        "fc2.bias": random(32),
        "fc3.weight": random(10, 32),
        "fc3.bias": random(10),
        "steps": torch.tensor(7),
    }


@pytest.fixture
def mlp_file(tmp_path: Path, mlp: dict[str, Tensor]) -> Path:
    path = tmp_path / "mlp.safetensors"
    save_file(mlp, path, metadata={"format": "pt", "note": "kept"})
    return path


@pytest.fixture
def sharded(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder as transformers does: shards, index, config, tokenizer."""

    def write(name: str, shards: list[dict[str, Tensor]], config: Mapping[str, object]) -> Path:
        folder = tmp_path / name
        (folder / "extra").mkdir(parents=True)
        placed = {}
        for number, tensors in enumerate(shards, 1):
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            save_file(tensors, folder / file, metadata={"format": "pt"})
            placed |= dict.fromkeys(tensors, file)
        index = {"metadata": {"total_size": 1}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "extra" / "notes.txt").write_text("hello")
        return folder

    return write


@pytest.fixture
def digest() -> Callable[[Path], str]:
    """One hash of a file, or of a folder with all names in it."""

    def of(path: Path) -> str:
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        stamp = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            stamp.update(str(file.relative_to(path)).encode() + file.read_bytes())
        return stamp.hexdigest()

    return of


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """A file of the real data, or skip."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("BISPARSE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
        if not (root / name).exists():
            pytest.skip(f"no {name} below BISPARSE_DATA ({root})")
        return root / name

    return find
