"""Two processes train a truly sparse network as one does: connections equal everywhere, weights to rounding."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.train.evolving import WAYS, Stop, state_of, trainer

from bisparse.timing import torch_threads
from bisparse.train.processes import Processes
from bisparse.train.sparse_layers import agree

OPTIMIZERS = ("sgd", "adam")


def train(processes: Processes, way: str, optimizer: str, **options: Any) -> dict[str, Any]:
    """In float64: how sums are rounded must not decide which connections grow."""
    run = trainer(way, processes=processes, optimizer=optimizer, dtype=torch.float64, **options)
    report = run.fit()
    dropped = [callback.dropped for callback in run.callbacks if hasattr(callback, "dropped")]
    return {"state": state_of(run), "final": report.final, "dropped": dropped}


def resumed(processes: Processes, folder: Path) -> dict[str, Any]:
    try:
        train(processes, "importance", "sgd", output=folder, extra=[Stop(25)])
    except KeyboardInterrupt:
        processes.wait()
    run = trainer("importance", processes=processes, output=folder, dtype=torch.float64, seed=3)
    run.fit(resume=True)
    return {"state": state_of(run)}


def differing(processes: Processes) -> dict[str, Any]:
    """Same sizes, but other connections on the second process."""
    run = trainer("set", processes=processes, seed=processes.rank)
    try:
        agree(run.model, processes)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": ""}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    processes = Processes(rank, 2)
    found = {f"{way}, {name}": train(processes, way, name) for way in WAYS for name in OPTIMIZERS}
    found["accumulated"] = train(processes, "rigl", "sgd", accumulate=2)
    found["resumed"] = resumed(processes, Path(folder) / "run")
    found["differing"] = differing(processes)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(work, args=(str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def same_bits(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_equal_one_and_each_other(found, way, optimizer):
    first, second = (each[f"{way}, {optimizer}"] for each in found)
    with torch_threads(1):
        alone = train(Processes(), way, optimizer)
    assert same_bits(first["state"], second["state"])
    assert first["dropped"] == second["dropped"] == alone["dropped"]
    for name, tensor in alone["state"].items():
        if tensor.is_floating_point():
            torch.testing.assert_close(first["state"][name], tensor, rtol=1e-9, atol=1e-11)
        else:
            assert torch.equal(first["state"][name], tensor), name
    assert first["final"] == pytest.approx(alone["final"], rel=1e-9)


def test_accumulated_parts_are_all_seen_when_connections_grow(found):
    one, other = found[0]["accumulated"], found[0]["rigl, sgd"]
    for name, tensor in one["state"].items():
        torch.testing.assert_close(tensor, other["state"][name], rtol=1e-9, atol=1e-11)


def test_a_run_of_two_processes_goes_on_bit_for_bit(found):
    for each in found:
        assert same_bits(each["resumed"]["state"], each["importance, sgd"]["state"])


def test_processes_with_other_connections_are_refused(found):
    assert all("rank(s) [1] differ from those of rank 0" in each["differing"]["error"] for each in found)
