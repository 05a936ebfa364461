"""Two processes train what one process trains: weights to rounding, masks exactly, on every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from tests.train import thresholded
from tests.train.divided import soft_alone
from tests.train.scenarios import work
from tests.train.two_processes import Net, plain, prepared

import bisparse as bs
from bisparse.weights import as_matrices

ALIKE = [
    "ddp",
    "ddp, prepared after",
    "ddp, accumulated",
    "fsdp",
    "fsdp, prepared after",
    "hybrid",
    "tensor parallel",
    "zero",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two")
    mp.start_processes(work, args=(str(path),), nprocs=2, start_method="spawn")
    return path


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_equal_one(folder: Path, name: str) -> None:
    alone = plain()
    for found in load(folder, name):
        assert found["masks"].keys() == alone["masks"].keys()
        for key, mask in alone["masks"].items():
            assert torch.equal(found["masks"][key], mask), key
            torch.testing.assert_close(found["values"][key], alone["values"][key], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found["dense"][key], alone["dense"][key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "fsdp, prepared after"])
def test_figures_are_those_of_the_whole_model_on_every_process(folder: Path, name: str) -> None:
    alone = plain()["metrics"]
    for found in load(folder, name):
        figures = found["metrics"]
        for key in ("entries", "density", "sad", "sad_from_start", "flips_forced", "kept_magnitude"):
            assert figures[key] == pytest.approx(alone[key], rel=1e-9), key
        assert figures["layers"].keys() == alone["layers"].keys()


@pytest.mark.parametrize("name", ["fsdp", "fsdp, prepared after"])
def test_masks_are_those_of_the_whole_weight_whatever_the_sharding(folder: Path, name: str) -> None:
    model = Net()
    sparse = prepared(model)
    found = load(folder, name)[0]
    for key, weight in sparse.weights.items():
        scores = as_matrices(found["dense"][key].abs(), weight.layout)
        best = bs.solve_mask(scores, weight.pattern).mask
        assert torch.equal(as_matrices(found["masks"][key], weight.layout), best), key
    assert len(sparse.weights) == 7


@pytest.mark.parametrize("name", ["ddp decay", "fsdp decay", "fsdp decay, prepared after"])
def test_the_term_is_added_once_and_not_once_for_each_process(folder: Path, name: str) -> None:
    assert [found["checked"] for found in load(folder, name)] == [True, True]


@pytest.mark.parametrize("name", ["soft", "soft, prepared after"])
def test_soft_thresholds_of_divided_weights_are_those_of_whole_ones(folder: Path, name: str) -> None:
    alone = soft_alone()
    for found in load(folder, name):
        for part, expected in alone.items():
            torch.testing.assert_close(found[part], expected, rtol=1e-9, atol=1e-12)


def test_soft_thresholds_of_cut_tiles_are_refused_when_the_optimizer_is_attached(folder: Path) -> None:
    for found in load(folder, "soft, cut"):
        assert 'rule "s-ste" needs whole groups of 4:8t on each process' in found["error"]


def test_other_initial_weights_than_rank_0_are_noticed(folder: Path) -> None:
    found = load(folder, "ddp other seeds")
    assert found[0]["error"] == ""
    assert "rank 0" in found[1]["error"]


def test_a_distributed_checkpoint_continues_bit_for_bit(folder: Path) -> None:
    for found in load(folder, "fsdp checkpoint"):
        for part in ("values", "masks", "dense"):
            for key, expected in found["through"][part].items():
                assert torch.equal(found["resumed"][part][key], expected), (part, key)
        assert found["through"]["metrics"] == found["resumed"]["metrics"]


def test_what_one_process_saved_goes_on_divided(folder: Path) -> None:
    for found in load(folder, "fsdp from plain state"):
        for part in ("values", "masks", "dense"):
            for key, expected in found["alone"][part].items():
                assert torch.equal(found["divided"][part][key], expected), (part, key)


def test_a_distributed_checkpoint_is_read_by_one_process(folder: Path) -> None:
    model = Net(seed=1)
    sparse = prepared(model)
    state = {"model": model.state_dict(), "sparsifier": sparse.state_dict(compact=False)}
    dcp.load(state, checkpoint_id=folder / "checkpoint", no_dist=True)
    model.load_state_dict(state["model"])
    sparse.load_state_dict(state["sparsifier"])
    for weight in sparse.weights.values():
        assert weight.steps == 3
        assert not (weight.values * weight.dropped).any()
        assert (weight.values + weight.hidden).count_nonzero() == weight.mask.numel()


def test_thresholds_of_two_processes_are_those_of_one(folder: Path) -> None:
    alone = thresholded.alone()
    for found in load(folder, "thresholds"):
        for part in ("thresholds", "values", "dense"):
            for key, expected in alone[part].items():
                torch.testing.assert_close(found[part][key], expected, rtol=1e-9, atol=1e-12)
        for key, mask in alone["masks"].items():
            assert torch.equal(found["masks"][key], mask), key
        assert 0.0 < found["metrics"]["density"] < 0.9


def test_thresholds_of_divided_weights_are_refused(folder: Path) -> None:
    for found in load(folder, "thresholds, divided"):
        assert len(found["errors"]) == 2
        assert all("train with DistributedDataParallel" in words for words in found["errors"])
