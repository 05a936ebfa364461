"""Two processes whose masks evolve end with the masks of one, on every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from tests.train.evolving_masks import SCENARIOS, alone
from tests.train.scenarios import work

ALIKE = [name for name in SCENARIOS if "checkpoint" not in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evolving")
    mp.start_processes(work, args=(str(path), "tests.train.evolving_masks"), nprocs=2, start_method="spawn")
    return path


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_equal_one(folder: Path, name: str) -> None:
    plain = alone(name.split(",")[0].split()[1])
    for found in load(folder, name):
        for key, mask in plain["masks"].items():
            assert torch.equal(found["masks"][key], mask), key
            torch.testing.assert_close(found["values"][key], plain["values"][key], rtol=1e-9, atol=1e-12)
            assert torch.equal(found["dense"][key], found["values"][key]), "nothing is hidden"
        for figure in ("density", "explored", "edge_distance", "sad_from_start"):
            assert found["metrics"][figure] == pytest.approx(plain["metrics"][figure], rel=1e-12)
    assert plain["metrics"]["sad_from_start"] > 0


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "checkpoint" in name])
def test_a_distributed_checkpoint_continues_bit_for_bit(folder: Path, name: str) -> None:
    for found in load(folder, name):
        for part in ("values", "masks", "dense"):
            for key, expected in found["through"][part].items():
                assert torch.equal(found["resumed"][part][key], expected), (part, key)
        assert found["through"]["metrics"] == found["resumed"]["metrics"]
