"""Connections that change while a trainer trains: counts, when, what the optimizer keeps, resumed bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.train.evolving import WAYS, Stop, state_of, trainer
from torch import nn

from bisparse.nn import SparseMLP
from bisparse.timing import torch_threads
from bisparse.train.callback import Callback
from bisparse.train.evolution import ImportancePruning, RiglEvolution, SetEvolution
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


class Watch(Callback):
    """Places of the first layer and its momentum, before and after everything of an epoch's end."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.momentum: list[dict[int, float]] = []

    def _look(self, run: Trainer) -> None:
        layer = run.model[0]
        keys = layer.index.keys()
        self.keys.append(keys)
        momentum = run.built_optimizer.state[layer.values]["momentum_buffer"]
        self.momentum.append(dict(zip(keys.tolist(), momentum.tolist(), strict=True)))

    def on_step(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if trainer.step % trainer.steps_per_epoch == 0:
            self._look(trainer)

    def on_epoch(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        self._look(trainer)


def test_set_exchanges_the_same_number_after_every_epoch_but_the_last():
    watch = Watch()
    run = trainer("set", extra=[watch])
    counts = [layer.nnz for layer in run.model.sparse_layers]
    report = run.fit()
    assert [layer.connections for layer in report.layers] == counts
    evolution = run.callbacks[0]
    assert evolution.dropped == evolution.grown
    for epoch in range(4):
        before, after = (set(watch.keys[2 * epoch + i].tolist()) for i in (0, 1))
        exchanged = len(before - after)
        assert len(before) == len(after)
        assert exchanged == 0 if epoch == 3 else 0.2 * len(before) < exchanged <= 0.3 * len(before)
        old, new = (watch.momentum[2 * epoch + i] for i in (0, 1))
        carried = sum(new[key] == old[key] != 0.0 for key in before & after)
        assert carried >= 0.7 * len(before)  # a dropped one may come back, with momentum 0
        assert all(new[key] in (0.0, old[key]) for key in before & after)
        assert all(new[key] == 0.0 for key in after - before)
    total = sum(counts)
    assert 3 * 0.2 * total < evolution.dropped <= 3 * 0.3 * total


def test_it_learns_and_says_what_is_sparse():
    run = trainer("set", epochs=12)
    report = run.fit()
    assert report.parts["test"].accuracy > 0.9
    assert report.notes == ["3 truly sparse layers, 320 of 1,960 weights (16.33%)"]
    assert {row["connections"] for row in report.rows} == {320}
    assert report.to_dict()["layers"][0] == {"name": "0", "shape": (40, 16), "connections": 112}
    assert 0.0 < run.callbacks[0].seconds < run.seconds


def test_rigl_edits_until_its_end():
    evolution = RiglEvolution(0.4, every=10, until=0.75)
    assert evolution.fraction(0, 100) == 0.4
    assert evolution.fraction(30, 80) == pytest.approx(0.2 * (1 + math.cos(math.pi / 2)))
    assert evolution.fraction(75, 100) == evolution.fraction(100, 100) == 0.0
    run = trainer("rigl")
    nnz = run.model.weight_count
    run.fit()
    found = run.callbacks[0]
    assert run.model.weight_count == nnz
    assert 0 < found.dropped == found.grown


def test_importance_pruning_shrinks_and_set_refills_only_to_that():
    run = trainer("importance")
    report = run.fit()
    pruning, evolution = run.callbacks
    counts = [row["connections"] for row in report.rows]
    assert pruning.grown == 0 < pruning.dropped
    assert evolution.dropped == evolution.grown > 0
    assert counts[0] == 320  # logged before the first cut
    assert counts == sorted(counts, reverse=True)
    assert report.layers[-1].connections == 68  # outputs are left alone
    assert sum(layer.connections for layer in report.layers) == 320 - pruning.dropped


@pytest.mark.parametrize("way", [way for way in WAYS if way != "static"])
@pytest.mark.parametrize("stop", [2, 8, 11, 13, 25])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, way, stop):
    optimizer = "adam" if way == "set" else "sgd"
    whole = trainer(way, dropout=0.2, optimizer=optimizer)
    expected = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(way, dropout=0.2, optimizer=optimizer, output=tmp_path, extra=[Stop(stop)]).fit()
    resumed = trainer(way, dropout=0.2, optimizer=optimizer, output=tmp_path, seed=7)  # other places at first
    report = resumed.fit(resume=True)
    one, other = state_of(whole), state_of(resumed)
    if stop > 2:  # before the first checkpoint a run starts anew
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert report.final == expected.final
        assert [c.dropped for c in resumed.callbacks] == [c.dropped for c in whole.callbacks]


def test_any_seed_is_a_seed():
    run = trainer("set", epochs=2)
    run.options = replace(run.options, seed=20_261_129)
    run.fit()
    assert run.callbacks[0].dropped > 0


def test_a_compiled_model_is_refused_before_the_first_step():
    run = trainer("rigl", compile=True)
    with pytest.raises(ValueError, match="leave compile out"):
        run.fit()
    assert run.step == 0


def test_a_model_without_sparse_layers_is_refused():
    run = trainer("set")
    run.model = SparseMLP((16, 8, 4), density=1)
    with pytest.raises(ValueError, match="no truly sparse layer that could evolve"):
        run.fit()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetEvolution(1.5), "zeta=1.5"),
        (lambda: SetEvolution(every=0), "every=0"),
        (lambda: RiglEvolution(-0.1), "alpha=-0.1"),
        (lambda: RiglEvolution(candidates=0), "candidates=0"),
        (lambda: ImportancePruning(share=1.0), "share=1.0"),
        (lambda: ImportancePruning(begin=0), "begin=0"),
    ],
)
def test_wrong_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_last_layer_may_be_left_alone():
    run = trainer("set")
    assert len(run.callbacks[0].layers(run)) == 3
    assert len(SetEvolution(last_layer=False).layers(run)) == 2
    run.model = SparseMLP((16, 40, 30, 4), epsilon=2, last="dense")
    assert len(SetEvolution(last_layer=False).layers(run)) == 2


def test_weights_of_sparse_layers_decay_and_biases_do_not():
    model = nn.Sequential(SparseMLP((16, 8, 4), epsilon=1), nn.LayerNorm(4))
    groups = OptimizerSpec(weight_decay=0.1).build(model).param_groups
    decaying = {id(parameter) for parameter in groups[0]["params"]}
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.1, 0.0)
    assert decaying == {id(layer.values) for layer in model[0].sparse_layers}
