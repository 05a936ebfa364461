"""Saving, resuming, copying: a resumed run continues bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.setting import DECAY, Dropped, network, same, silent_loss, sparsifier
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bisparse as bs
from bisparse.train import Ramp, Schedule


class Run:
    """A model in training, whose batches are numbered."""

    def __init__(self, pattern: str = "2:4t", **options: Any) -> None:
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.02)
        settings: dict[str, Any] = {"update_every": 2, "ignore": [], "window": 2} | options
        self.sparse = bs.Sparsifier(pattern, **settings).prepare(self.model, self.optimizer)
        self.done = 0

    def train(self, steps: int) -> Run:
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.done)
            inputs, targets = (torch.randn(16, 8, generator=generator).double() for _ in range(2))
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
            "done": self.done,
        }

    def load(self, state: dict[str, Any]) -> Run:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sparse.load_state_dict(state["sparsifier"])
        self.done = state["done"]
        return self


CASES: list[tuple[str, dict[str, Any]]] = [
    ("2:4t", {}),
    ("1:4", {"rule": "ste"}),
    ("unstructured:0.7", {"rule": "hard"}),
    ("2:4t", {"rule": "s-ste", "update_every": 1}),
    ("2:4t", {"average": 0.9, "hysteresis": 0.1}),
    ("2:4t", {"schedule": Schedule(every=2, dense_until=8)}),
    ("1:4t", {"schedule": Schedule(every=1, ramp=Ramp(0, 12))}),
    ("2:4t", {"schedule": Schedule(every=2, dense_from=5)}),
]


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(("pattern", "options"), CASES)
def test_resuming_continues_bit_for_bit(pattern: str, options: dict[str, Any], compact: bool) -> None:
    through = Run(pattern, **options).train(7)
    file = io.BytesIO()
    torch.save(through.state(compact=compact), file)
    file.seek(0)
    resumed = Run(pattern, **options).load(torch.load(file, weights_only=True))
    through.train(8)
    resumed.train(8)
    assert same(through.state(), resumed.state())
    for name, weight in through.sparse.weights.items():
        twin = resumed.sparse.weights[name]
        assert torch.equal(weight.hidden, twin.hidden)
        assert torch.equal(weight.mask, twin.mask)
    without_time = [
        {k: v for k, v in run.sparse.metrics().items() if "seconds" not in k} for run in (through, resumed)
    ]
    for figures in without_time:
        figures.pop("refresh_share")
    assert without_time[0] == without_time[1]


def test_the_order_of_loading_does_not_matter() -> None:
    through = Run().train(5)
    state = copy.deepcopy(through.state())
    resumed = Run()
    resumed.sparse.load_state_dict(state["sparsifier"])
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.done = state["done"]
    assert same(through.train(4).state(), resumed.train(4).state())


@pytest.mark.parametrize(("pattern", "options"), CASES)
def test_a_model_that_was_loaded_before_prepare(pattern: str, options: dict[str, Any]) -> None:
    """As frameworks do it: they load their checkpoint, then a callback prepares the model and loads its own."""
    through = Run(pattern, **options).train(7)
    state = copy.deepcopy(through.state())
    resumed = Run(pattern, **options)
    resumed.model.load_state_dict(network().state_dict())
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer = torch.optim.AdamW(resumed.model.parameters(), lr=0.02)
    resumed.sparse = bs.Sparsifier(pattern, **{"update_every": 2, "ignore": [], "window": 2} | options)
    resumed.sparse.prepare(resumed.model, resumed.optimizer).load_state_dict(state["sparsifier"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.done = state["done"]
    assert same(through.state(), resumed.state())
    assert same(through.train(4).state(), resumed.train(4).state())


def test_a_state_that_is_older_than_a_figure_goes_on() -> None:
    state = copy.deepcopy(Run().train(3).state())
    del state["sparsifier"]["history"]["flip_rate_forced"], state["sparsifier"]["hides_all"]
    resumed = Run().load(state).train(2)
    assert len(resumed.sparse.state_dict()["history"]["flip_rate_forced"]) == len(resumed.sparse.history)


@pytest.mark.parametrize("sparsifier_first", [False, True])
def test_states_of_torch_distributed_checkpoint_in_any_order(sparsifier_first: bool) -> None:
    """It makes the state of a new optimizer by a step with zeros: no step of training."""
    through = Run().train(3)
    model, optimizer = copy.deepcopy(get_state_dict(through.model, through.optimizer))
    state, resumed = through.sparse.state_dict(), Run()
    if sparsifier_first:
        resumed.sparse.load_state_dict(state)
    set_state_dict(resumed.model, resumed.optimizer, model_state_dict=model, optim_state_dict=optimizer)
    if not sparsifier_first:
        resumed.sparse.load_state_dict(state)
    resumed.done = through.done
    assert same(through.state(), resumed.state())
    assert same(through.train(4).state(), resumed.train(4).state())


def test_saving_an_optimizer_without_state_is_no_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = sparsifier().prepare(model, optimizer)
    dropped = Dropped(sparse)
    for _ in range(3):
        silent_loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        get_state_dict(model, optimizer)
    dropped.check(3, 1.0 - 0.1 * DECAY)


def test_a_step_at_learning_rate_0_counts() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparse = sparsifier().prepare(model, optimizer)
    model(torch.randn(4, 8).double()).sum().backward()
    optimizer.step()
    assert sparse.metrics()["step"] == 1


def test_masks_are_bits_and_only_dropped_values_are_stored() -> None:
    entry = Run().sparse.state_dict()["weights"]["0.weight"]
    assert entry["mask"].shape == (8, 1)
    assert entry["mask"].dtype == torch.uint8
    assert entry["values"].shape == (32,)


def test_a_loaded_dense_checkpoint_is_noticed() -> None:
    run = Run()
    run.model.load_state_dict(network(seed=3).state_dict())
    with pytest.raises(ValueError, match=r"0.weight: entries that the mask drops are not zero"):
        run.train(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Run("1:4t").sparse, "saved for 1:4t on shape"),
        (lambda: Run(targets=["0"]).sparse, "other weights than the model: missing"),
        (
            lambda: Run(rule="s-ste").sparse,
            "a rule that keeps all of W aside, this sparsifier's keeps what is dropped",
        ),
    ],
)
def test_a_state_of_another_sparsifier_is_refused_and_changes_nothing(make: Any, message: str) -> None:
    state, run = make().state_dict(), Run()
    before = run.sparse.state_dict()
    with pytest.raises(ValueError, match=message):
        run.sparse.load_state_dict(state)
    assert same(run.sparse.state_dict(), before)


def test_any_other_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="no state of a sparsifier"):
        Run().sparse.load_state_dict(network().state_dict())


@pytest.mark.parametrize("missing", ["weights", "history", "mask", "first", "figures", "is_dense"])
def test_a_state_that_was_cut_is_refused_and_changes_nothing(missing: str) -> None:
    state, run = Run().train(5).sparse.state_dict(), Run()
    before = run.sparse.state_dict()
    holder = state if missing in state else state["weights"]["0.weight"]
    del holder[missing]
    with pytest.raises(ValueError, match=rf"lacks \['{missing}'\]: it was cut or edited"):
        run.sparse.load_state_dict(state)
    assert same(run.sparse.state_dict(), before)


def test_the_model_s_state_dict_is_sparse_under_its_ordinary_names() -> None:
    run = Run().train(3)
    plain = network()
    plain.load_state_dict(run.model.state_dict())
    assert list(plain.state_dict()) == list(run.model.state_dict())
    assert bs.verify_mask(plain[0].weight.detach() != 0, "2:4t").feasible


def test_the_model_is_pickled_and_copied_like_any_other(tmp_path: Path) -> None:
    run = Run().train(3)
    torch.save(run.model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    inputs = torch.randn(4, 8).double()
    assert torch.equal(loaded(inputs), run.model(inputs))
    assert torch.equal(copy.deepcopy(run.model)(inputs), run.model(inputs))
    pickle.loads(pickle.dumps(run.optimizer))


def test_a_copy_of_everything_trains_on_its_own() -> None:
    run = Run().train(3)
    model, optimizer, sparse = copy.deepcopy((run.model, run.optimizer, run.sparse))
    twin = Run()
    twin.model, twin.optimizer, twin.sparse, twin.done = model, optimizer, sparse.attach(optimizer), run.done
    before = copy.deepcopy(run.state())
    twin.train(5)
    assert same(run.state(), before)
    assert same(run.train(5).state(), twin.state())
    assert sparse.weights["0.weight"].parameter is model[0].weight


def test_a_moving_average_over_masks_that_move_is_masked_by_the_last_ones() -> None:
    run = Run(rule="ste", update_every=1)
    average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(20):
        run.train(1)
        average.update_parameters(run.model)
    kept = average.module[0].weight.detach()
    assert not bs.verify_mask(kept != 0, "2:4t").feasible  # it holds entries of several masks
    with torch.no_grad():
        for name, mask in run.sparse.masks.items():
            average.module.get_parameter(name).mul_(mask)
    assert bs.verify_mask(kept != 0, "2:4t").feasible


def test_a_moving_average_of_the_sparse_model() -> None:
    run = Run(schedule=Schedule.static())
    average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(5):
        run.train(1)
        average.update_parameters(run.model)
    for name, mask in run.sparse.masks.items():
        kept = dict(average.module.named_parameters())[name].detach()
        assert not (kept * ~mask).any()
        assert (kept * mask).count_nonzero() == mask.sum()


def test_squash_mask_ends_it() -> None:
    run = Run().train(5)
    before = copy.deepcopy(run.model.state_dict())
    assert run.sparse.squash_mask() is run.model
    assert same(dict(run.model.state_dict()), dict(before))
    assert not run.optimizer._optimizer_step_pre_hooks
    assert not run.optimizer._optimizer_step_post_hooks
    assert run.sparse.metrics()["step"] == 5
    run.train(1)
    assert (run.model[0].weight != 0).sum() > 32  # an ordinary model again


def test_a_model_that_moves_to_another_dtype_is_followed() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = sparsifier().prepare(model, optimizer)
    model.float()
    silent_loss(model).backward()
    optimizer.step()
    assert sparse.weights["0.weight"].hidden.dtype == torch.float32
    assert (model[0].weight != 0).sum() == 32
