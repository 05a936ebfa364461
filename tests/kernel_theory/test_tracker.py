from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.kernel_theory.networks import problem, two_layer
from torch import nn

from bisparse.kernel_theory import SpectrumCallback, SpectrumTracker, alignment, cka, gradient_kernel
from bisparse.report import render, to_json
from bisparse.train import Schedule, Sparsifier
from bisparse.train.callback import Callback, LogRow
from bisparse.train.examples import DataParts, Pairs, hold_out
from bisparse.train.train_options import TrainOptions
from bisparse.train.trainer import Trainer


def test_snapshots_are_what_their_definitions_say() -> None:
    X, y, _ = problem(15, 4)
    first, second = two_layer(4, 12, seed=1), two_layer(4, 12, seed=2)
    tracker = SpectrumTracker(X, y, top=3)
    tracker.observe(first, 0)
    seen = tracker.observe(second, 10)
    K, L = gradient_kernel(first, X), gradient_kernel(second, X)
    values = torch.linalg.eigvalsh(L).flip(0)
    assert seen.eigenvalues == pytest.approx(values[:3].tolist())
    assert seen.trace == pytest.approx(float(L.trace()))
    assert seen.stable_rank == pytest.approx(float(L.trace() / values[0]))
    assert seen.alignment == pytest.approx(alignment(L, y))
    assert seen.cka_start == seen.cka_last == pytest.approx(cka(K, L))
    assert seen.velocity == pytest.approx(float((K - L).norm() / K.norm()) / 10)
    assert math.isnan(tracker.history[0].velocity)
    assert tracker.history[0].cka_start == pytest.approx(1.0)
    assert (seen.flip_rate, seen.sad) == (None, None)


def test_a_network_at_rest_has_no_velocity() -> None:
    model, tracker = two_layer(4, 12), SpectrumTracker(problem(10, 4)[0], kernel="feature")
    tracker.observe(model, 0)
    seen = tracker.observe(model, 5)
    assert seen.velocity == 0.0
    assert seen.cka_last == pytest.approx(1.0)
    assert math.isnan(seen.alignment)


def parts() -> DataParts:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 16, generator=generator)
    labels = torch.arange(160) % 4
    inputs = centres[labels] + 0.3 * torch.randn(160, 16, generator=generator)
    train, validation = hold_out(Pairs(inputs, labels), 32)
    return DataParts(train, validation, None)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(16, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def trainer(callbacks: list[Callback], output: Path | None = None) -> Trainer:
    sparsifier = Sparsifier("2:4t", schedule=Schedule(every=2))
    options = TrainOptions(epochs=3, batch=16)
    return Trainer(network(), parts(), options, sparsifier=sparsifier, callbacks=callbacks, output=output)


class Stop(Callback):
    def on_step(self, trainer: Trainer, row: LogRow) -> None:
        if trainer.step == 11:
            raise KeyboardInterrupt


def callback() -> SpectrumCallback:
    generator = torch.Generator().manual_seed(3)
    tracker = SpectrumTracker(torch.randn(20, 16, generator=generator), torch.arange(20) % 4)
    return SpectrumCallback(tracker, every=5)


def test_the_trainer_takes_snapshots_next_to_flips(tmp_path: Path) -> None:
    seen = callback()
    run = trainer([seen])
    run.fit()
    tracker = seen.tracker
    assert [snapshot.step for snapshot in tracker.history] == [0, 5, 10, 15, 20, 24]
    assert run.sparsifier is not None
    assert sum(s.sad for s in tracker.history) == sum(row["sad"] for row in run.sparsifier.history)  # type: ignore[misc]
    assert all(snapshot.flip_rate is not None for snapshot in tracker.history)
    masked = gradient_kernel(run.model, tracker.X, masks=run.sparsifier.masks)
    assert tracker.history[-1].trace == pytest.approx(float(masked.trace()), rel=1e-4)
    report = tracker.report()
    assert "flip rate" in render(report.to_table())[1]
    assert len(json.loads(to_json(report))["snapshots"]) == 6
    assert str(report).startswith("gradient kernel along training")
    assert report.plot(tmp_path / "spectra.png").stat().st_size > 10_000


def test_snapshots_survive_an_interruption(tmp_path: Path) -> None:
    whole = callback()
    trainer([whole]).fit()
    first = callback()
    with pytest.raises(KeyboardInterrupt):
        trainer([first, Stop()], tmp_path).fit()
    second = callback()
    trainer([second, Callback()], tmp_path).fit(resume=True)
    assert [s.row() for s in second.tracker.history] == [s.row() for s in whole.tracker.history]


def test_refusals() -> None:
    X, y, _ = problem(10, 4)
    with pytest.raises(ValueError, match="'gradient' or 'feature'"):
        SpectrumTracker(X, kernel="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="eigenvalue"):
        SpectrumTracker(X, top=0)
    with pytest.raises(ValueError, match="9 targets for 10"):
        SpectrumTracker(X, y[:9])
    with pytest.raises(ValueError, match="every"):
        SpectrumCallback(SpectrumTracker(X), every=0)
    with pytest.raises(ValueError, match="no snapshots"):
        SpectrumTracker(X).report().plot("nothing.png")
    tracker = SpectrumTracker(X)
    tracker.observe(two_layer(4, 6), 5)
    with pytest.raises(ValueError, match="comes before the last snapshot"):
        tracker.observe(two_layer(4, 6), 4)
