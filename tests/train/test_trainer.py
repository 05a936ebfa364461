"""The training loop: it learns, it goes on bit for bit, its parts may be exchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bisparse.timing import torch_threads
from bisparse.train import Schedule, Sparsifier
from bisparse.train.callback import Callback
from bisparse.train.examples import DataParts, Pairs, hold_out, in_order, shuffled
from bisparse.train.learning_rate import LearningRate
from bisparse.train.loading import Request, load
from bisparse.train.objective import CrossEntropy
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.run_log import RunLog, read_log
from bisparse.train.train_options import TrainOptions
from bisparse.train.trainer import Trainer

TIMES = ("seconds", "refresh_seconds", "step_seconds", "refresh_share")


@pytest.fixture(autouse=True)
def one_thread():
    with torch_threads(1):
        yield


def parts() -> DataParts:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 16, generator=generator)
    labels = torch.arange(256) % 4
    inputs = centres[labels] + 0.3 * torch.randn(256, 16, generator=generator)
    train, validation = hold_out(Pairs(inputs[:200], labels[:200]), 40)
    return DataParts(train, validation, Pairs(inputs[200:], labels[200:]))


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def trainer(output: Path | None = None, callbacks: list[Callback] | None = None, **changes: Any) -> Trainer:
    options = TrainOptions(**{"epochs": 4, "batch": 16, "checkpoint_every": 3, **changes})
    optimizer = OptimizerSpec(name="adamw", lr=0.01, weight_decay=0.01)
    sparsifier = Sparsifier("2:4t", schedule=Schedule(every=4))
    return Trainer(
        network(),
        parts(),
        options,
        optimizer,
        sparsifier=sparsifier,
        callbacks=callbacks or [],
        output=output,
    )


class Stop(Callback):
    """Ends the run at a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if trainer.step == self.step:
            raise KeyboardInterrupt


def test_it_learns_stays_sparse_and_says_so(tmp_path):
    run = trainer(tmp_path, [RunLog(tmp_path)])
    report = run.fit()
    assert report.parts["test"].accuracy > 0.9
    assert [mask.holds for mask in report.masks] == [True, True]
    assert report.notes == ["2 weights of 2:4t, verified"]
    assert (run.model[0].weight == 0).float().mean() == 0.5
    assert [row["epoch"] for row in report.rows] == [1, 2, 3, 4]
    assert {"loss", "accuracy", "validation_accuracy", "flip_rate", "kept_magnitude"} <= set(report.rows[-1])
    assert (tmp_path / "metrics.csv").read_text().startswith("step,epoch,loss,accuracy,validation_loss")
    assert report.to_dict()["test_accuracy"] == report.parts["test"].accuracy


def state_of(run: Trainer) -> list[Tensor]:
    return [tensor.clone() for tensor in run.model.state_dict().values()]


@pytest.mark.parametrize(
    ("stop", "precision"), [(2, "float32"), (7, "float32"), (10, "float32"), (25, "float32"), (25, "float16")]
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop, precision):
    whole = trainer(tmp_path / "a", [RunLog(tmp_path / "a", every=1)], precision=precision)
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "b", [RunLog(tmp_path / "b", every=1), Stop(stop)], precision=precision).fit()
    resumed = trainer(tmp_path / "b", [RunLog(tmp_path / "b", every=1), Callback()], precision=precision)
    resumed.fit(resume=True)
    assert all(map(torch.equal, state_of(whole), state_of(resumed)))
    logs = [read_log(tmp_path / name / "metrics.jsonl") for name in ("a", "b")]
    for log in logs:
        for row in log:
            for name in TIMES:
                row.pop(name, None)
    assert logs[0] == logs[1]


def test_resuming_a_finished_run_trains_no_further(tmp_path):
    first = trainer(tmp_path)
    first.fit()
    again = trainer(tmp_path)
    report = again.fit(resume=True)
    assert report.steps == first.step
    assert all(map(torch.equal, state_of(first), state_of(again)))


def test_accumulated_parts_equal_one_batch():
    runs = [trainer(accumulate=n, epochs=1) for n in (1, 4)]
    for run in runs:
        run.model[2].p = 0.0
        run.fit()
    for one, many in zip(*map(state_of, runs), strict=True):
        assert torch.allclose(one, many, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 0.1},
        {"steps_per_epoch": 2},
        {"workers": 1},
        {"precision": "bfloat16"},
        {"precision": "float16", "clip": 0.1},
    ],
)
def test_options_run(change):
    report = trainer(epochs=2, **change).fit()
    assert math.isfinite(report.parts["validation"].loss)
    assert all(mask.holds for mask in report.masks)
    assert report.steps == 2 * change.get("steps_per_epoch", 10)


def test_workers_do_not_change_the_result():
    alone, helped = trainer(epochs=1), trainer(epochs=1, workers=1)
    alone.fit()
    helped.fit()
    assert all(map(torch.equal, state_of(alone), state_of(helped)))


def test_dense_training_without_test_data():
    run = replace(trainer(), sparsifier=None, data=replace(parts(), test=None))
    report = run.fit()
    assert set(report.parts) == {"validation"}
    assert report.notes == ["dense"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch": 500}, "do not fill one batch"), ({"batch": 15, "accumulate": 2}, "does not divide")],
)
def test_impossible_batches_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        trainer(**change).fit()


def test_options_must_be_positive():
    with pytest.raises(ValueError, match="epochs=0"):
        TrainOptions(epochs=0)


def test_every_epoch_is_a_new_order_of_everything():
    first, second = (torch.cat(shuffled(20, 5, seed=3, epoch=epoch)) for epoch in (0, 1))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(20))
    assert first.tolist() != second.tolist()
    assert torch.equal(first, torch.cat(shuffled(20, 5, seed=3, epoch=0)))
    assert [len(part) for part in in_order(7, 3)] == [3, 3, 1]


def test_held_out_examples_are_disjoint_and_complete():
    data = Pairs(torch.arange(10), torch.arange(10))
    train, validation = hold_out(data, 3)
    numbers = [part.batch(torch.arange(len(part)), None)[0].tolist() for part in (train, validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(10))
    with pytest.raises(ValueError, match="cannot hold out"):
        hold_out(data, 10)


@pytest.mark.parametrize("workers", [0, 1])
def test_random_changes_belong_to_the_request(workers):
    class Noise(Pairs):
        def batch(self, chosen: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
            assert generator is not None
            return torch.rand(3, generator=generator), chosen

    data = Noise(torch.arange(4), torch.arange(4))
    requests = [Request(torch.tensor([i]), seed) for i, seed in enumerate((7, 8, 7))]
    noise = [inputs for inputs, _ in load(data, requests, workers)]
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    ("rate", "factors"),
    [
        (LearningRate(shape="constant"), [1, 1, 1, 1]),
        (LearningRate(shape="linear"), [1, 0.75, 0.5, 0.25]),
        (LearningRate(shape="cosine"), [1, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5]),
        (LearningRate(shape="linear", warmup=2, floor=0.5), [0.5, 1, 1, 0.75]),
        (LearningRate(shape="step", milestones=(1, 3)), [1, 0.1, 0.1, 0.01]),
    ],
)
def test_learning_rates(rate, factors):
    assert [rate.factor(step, 4) for step in range(4)] == pytest.approx(factors)


def test_unknown_optimizers_are_refused():
    with pytest.raises(ValueError, match="optimizer 'adamww': choose one of sgd, adam, adamw"):
        OptimizerSpec(name="adamww")


def test_biases_do_not_decay():
    groups = OptimizerSpec(weight_decay=0.1).build(network()).param_groups
    assert [(group["weight_decay"], {p.dim() for p in group["params"]}) for group in groups] == [
        (0.1, {2}),
        (0.0, {1}),
    ]


def test_label_smoothing_counts_only_while_training():
    model = nn.Linear(4, 3)
    batch = (torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    plain, smooth = CrossEntropy(), CrossEntropy(0.2)
    assert smooth(model.train(), batch).loss != plain(model, batch).loss
    assert smooth(model.eval(), batch).loss == plain(model, batch).loss


def test_a_single_logit_has_the_logistic_loss():
    model = nn.Linear(4, 1)
    inputs, targets = torch.randn(5, 4), torch.tensor([0, 1, 1, 0, 1])
    outcome = CrossEntropy()(model, (inputs, targets))
    logits = model(inputs).flatten()
    expected = nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    torch.testing.assert_close(outcome.loss, expected)
    assert int(outcome.hits) == int(((logits > 0).long() == targets).sum())
