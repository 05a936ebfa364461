"""Evolving runs resume bit for bit, whatever the number of threads, in every form of loop."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from tests.train.setting import same
from torch import nn

import bisparse as bs
from bisparse.train import Evolve, Fraction, Importance, RigL, Schedule, Set, Snfs
from bisparse.train.topology import GROWS

TOPOLOGIES: dict[str, Any] = {
    "set": Set(),
    "set in tiles": Set(),
    "rigl": RigL(),
    "rigl in tiles": RigL(fraction=Fraction(0.5, "cosine")),
    "rigl, averaged": RigL(gradients=3),
    "snfs": Snfs(),
    "unfired": Evolve(grow=GROWS["random-unfired"]),
    "neurons": Set(neurons=Importance(start=2, every=1)),
}


class Run:
    """A model in training, whose batches are numbered."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 8)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.02)
        self.sparse = bs.Sparsifier(
            "2:4t" if "tiles" in name else "unstructured:0.8",
            topology=TOPOLOGIES[name],
            allocation=None if "tiles" in name else "erk",
            schedule=Schedule(every=4, freeze=24),
            ignore=[],
        ).prepare(self.model, self.optimizer)
        self.done = 0

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.done)
            inputs, targets = (torch.randn(16, n, generator=generator) for n in (16, 8))
            self.optimizer.zero_grad()
            nn.functional.mse_loss(self.model(inputs), targets).backward()
            self.optimizer.step()
            self.done += 1
        return self

    def state(self, **options: bool) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": self.sparse.state_dict(**options),
        }


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("stop", [0, 11])
def test_resuming_continues_bit_for_bit(name: str, compact: bool, stop: int) -> None:
    through = Run(name).train(stop)
    file = io.BytesIO()
    torch.save(through.state(compact=compact), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = Run(name)
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.sparse.load_state_dict(state["sparsifier"])
    resumed.done = stop
    through.train(10)
    resumed.train(10)
    assert same(through.state(), resumed.state())
    assert through.sparse.metrics()["explored"] == resumed.sparse.metrics()["explored"]
    assert through.sparse.metrics()["sad_from_start"] > 0


@pytest.mark.parametrize("name", ["set", "rigl", "snfs"])
def test_a_model_that_was_loaded_before_prepare(name: str) -> None:
    """As frameworks do it: they load their checkpoint, then a callback prepares the model and loads its own."""
    through = Run(name).train(7)
    state = copy.deepcopy(through.state())
    resumed = Run(name)
    model = resumed.model
    resumed.sparse.squash_mask()
    model.load_state_dict(state["model"])
    resumed.optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    resumed.sparse = bs.Sparsifier(
        "unstructured:0.8",
        topology=TOPOLOGIES[name],
        allocation="erk",
        schedule=Schedule(every=4, freeze=24),
        ignore=[],
    ).prepare(model, resumed.optimizer)
    resumed.sparse.load_state_dict(state["sparsifier"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.done = 7
    assert same(through.train(9).state(), resumed.train(9).state())


@pytest.mark.parametrize("name", ["set", "rigl", "rigl in tiles", "snfs"])
def test_masks_do_not_depend_on_the_number_of_threads(name: str) -> None:
    masks = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        masks.append(dict(Run(name).train(9).sparse.masks))
    torch.set_num_threads(1)
    assert same(*masks)


def test_a_run_repeats_and_a_seed_changes_it() -> None:
    assert same(Run("set").train(8).state()["model"], Run("set").train(8).state()["model"])
    other = copy.copy(TOPOLOGIES["set"])
    masks = [
        bs.Sparsifier("unstructured:0.8", topology=topology, ignore=[]).prepare(nn.Linear(16, 16)).masks
        for topology in (other, Set(seed=1))
    ]
    assert not same(*masks)


def test_the_explicit_form_chooses_the_same_masks() -> None:
    """Plain SGD sees the same in both forms: what it gives to dropped entries is taken back."""
    runs = []
    for explicit in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = bs.Sparsifier(
            "unstructured:0.8", topology=RigL(gradients=2), schedule=Schedule(every=3, freeze=20), ignore=[]
        ).prepare(model)
        sparse.attach(optimizer, explicit=explicit)
        for step in range(10):
            generator = torch.Generator().manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(16, 16, generator=generator)).square().mean().backward()
            optimizer.step()
            if explicit:
                sparse.step()
        runs.append(sparse.masks)
        assert sparse.metrics()["sad_from_start"] > 0
    assert same(*runs)


def test_gradient_scaling_changes_nothing() -> None:
    """A fused optimizer divides by the scale itself, so that the gradients that are seen still carry it."""
    masks = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        layer = nn.Linear(16, 16, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        sparse = bs.Sparsifier(
            "unstructured:0.8",
            topology=Snfs(redistribute=None),
            schedule=Schedule(every=3, freeze=20),
            ignore=[],
        ).prepare(layer, optimizer)
        for step in range(9):
            generator = torch.Generator().manual_seed(step)
            optimizer.zero_grad()
            scaler.scale(layer(torch.randn(16, 16, generator=generator)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        masks.append(sparse.masks)
        assert sparse.weights["weight"].extra["momentum"].abs().max() < 1.0
    assert same(*masks)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "topology", [RigL(), RigL(gradients=2), Snfs(redistribute=None)], ids=["rigl", "averaged", "snfs"]
)
def test_a_step_that_a_scaler_skips_leaves_no_trace(topology: Evolve, fused: bool) -> None:
    """Neither in masks nor in what is gathered for the next ones, also where masks were due after it."""
    runs = []
    for skipped in ((), (2, 5, 6)):
        torch.manual_seed(0)
        layer = nn.Linear(16, 16, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
        sparse = bs.Sparsifier(
            "unstructured:0.8", topology=topology, schedule=Schedule(every=3, freeze=20), ignore=[]
        ).prepare(layer, optimizer)
        for step in range(9):
            for factor in (torch.inf, 1.0) if step in skipped else (1.0,):
                inputs = torch.randn(16, 16, generator=torch.Generator().manual_seed(step))
                optimizer.zero_grad()
                scaler.scale(layer(inputs).square().mean() * factor).backward()
                scaler.step(optimizer)
                scaler.update()
        runs.append(
            {
                "sparse": sparse.state_dict(),
                "layer": layer.state_dict(),
                "optimizer": optimizer.state_dict()["state"],
            }
        )
        assert sparse.weights["weight"].steps == 9
    assert same(*runs)
