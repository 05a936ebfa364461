"""Every weight matrix of the real pretrained checkpoints, solved and verified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bisparse as bs

DATA = Path(os.environ.get("BISPARSE_DATA", Path(__file__).parents[2] / "../shared/data"))
CHECKPOINTS = [
    "resnet_cifar10/resnet20-12fca82f.th",
    "resnet_cifar10/resnet32-d509ac18.th",
    "tinyllama/stories260K.pt",
]


def matrices(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights as (batch, outputs, inputs); a convolution gives one matrix for each kernel position."""
    loaded = torch.load(path, weights_only=True, map_location="cpu")
    for name, value in loaded["state_dict"].items():
        if value.ndim == 2:
            yield name, value[None]
        elif value.ndim == 4:
            yield name, value.permute(2, 3, 0, 1).flatten(0, 1)


@pytest.mark.data
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("pattern", ["2:4t", "4:8t", "8:16t"])
def test_real_weights_are_solved_with_proof(checkpoint: str, pattern: str) -> None:
    path = DATA / checkpoint
    if not path.exists():
        pytest.skip(f"no {checkpoint} in BISPARSE_DATA ({DATA})")
    solved = 0
    for name, weight in matrices(path):
        result = bs.solve_mask(weight, pattern, magnitude=True, return_duals=True)
        found = bs.verify_mask(result.mask, pattern, scores=weight.abs(), duals=result.duals)
        assert found.optimal, (name, found)
        solved += 1
    assert solved >= 19
