"""Flips, their causes, kept magnitude, and their sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.setting import network
from torch import nn

import bisparse as bs
from bisparse.pattern import TransposableNM
from bisparse.train import Schedule, SrSte
from bisparse.train.measures.bits import count, pack, unpack
from bisparse.train.measures.causes import forced_flips
from bisparse.train.measures.clock import Clock
from bisparse.zoo.digits import digits
from bisparse.zoo.mlp import mlp


@given(st.integers(0, 5), st.integers(1, 19), st.integers(0, 99))
def test_bits_come_back(rows: int, columns: int, seed: int) -> None:
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) > 0.5
    packed = pack(mask)
    assert packed.shape == (rows, -(-columns // 8))
    assert torch.equal(unpack(packed, mask.shape), mask)
    assert count(mask) == int(mask.sum())


def test_bits_of_a_convolution() -> None:
    mask = torch.rand(4, 3, 3, 3) > 0.5
    assert pack(mask).shape == (4, 4)
    assert torch.equal(unpack(pack(mask), mask.shape), mask)


def test_a_flip_by_magnitude_and_a_forced_one_by_eye() -> None:
    scores = torch.tensor([[[9.0, 8.0, 1.0, 2.0],
                            [7.0, 9.0, 3.0, 1.0],
                            [8.0, 1.0, 2.0, 6.0],
                            [2.0, 3.0, 7.0, 5.0]]])  # fmt: skip
    new = bs.solve_mask(scores, "2:4t").mask
    old = new.clone()
    old[0, 1] = torch.tensor([True, True, False, False])  # the row alone keeps 7 and 9; column 0 is full
    old[0, 2] = torch.tensor([False, True, False, True])  # 8 came back for 1: by magnitude
    assert int((old ^ new).sum()) == 4
    assert forced_flips(scores, old, new, TransposableNM(2, 4)) == 2
    assert forced_flips(scores, new, new, TransposableNM(2, 4)) == 0


@given(st.integers(0, 10**6), st.integers(1, 17), st.integers(1, 17))
def test_forced_flips_are_those_where_the_row_wise_mask_disagrees(seed: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    before, scores = (torch.rand(2, rows, columns, generator=generator) for _ in range(2))
    pattern = TransposableNM(2, 4)
    old, new = (bs.solve_mask(s, pattern).mask for s in (before, scores))
    by_row = bs.solve_mask(scores, "2:4").mask
    assert forced_flips(scores, old, new, pattern) == int(((old ^ new) & (by_row ^ new)).sum())


def train(sparse: bs.Sparsifier, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(torch.randn(16, 8).double()), torch.randn(16, 8).double()).backward()
        optimizer.step()


def prepared(**options: Any) -> tuple[bs.Sparsifier, nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    settings: dict[str, Any] = {"update_every": 2, "ignore": [], "rule": "ste", "window": 3} | options
    return bs.Sparsifier("2:4t", **settings).prepare(model, optimizer), model, optimizer


def test_sad_is_the_number_of_entries_that_changed() -> None:
    sparse, model, optimizer = prepared()
    masks = [{name: mask.clone() for name, mask in sparse.masks.items()}]
    for refresh in range(1, 9):
        train(sparse, model, optimizer, 2)
        masks.append({name: mask.clone() for name, mask in sparse.masks.items()})
        figures = sparse.metrics()
        opening = masks[(refresh - 1) // 3 * 3]
        for name, mask in sparse.masks.items():
            layer = figures["layers"][name]
            assert layer["sad"] == (mask ^ masks[-2][name]).sum()
            assert layer["sad_from_start"] == (mask ^ masks[0][name]).sum()
            assert layer["sad_window"] == (mask ^ opening[name]).sum()
            assert layer["flip_rate"] == layer["sad"] / mask.numel()
            assert layer["flips_forced"] + layer["flips_magnitude"] == layer["sad"]
            assert layer["flip_rate_forced"] == layer["flips_forced"] / mask.numel()
        assert figures["sad"] == sum(layer["sad"] for layer in figures["layers"].values())
        assert figures["sad"] % 2 == 0  # an entry leaves for each that comes
    assert [row["step"] for row in sparse.history] == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert sum(row["sad"] for row in sparse.history) > 0
    assert sparse.history[-1]["sad"] == sparse.metrics()["sad"]


def test_kept_magnitude_and_diversity() -> None:
    sparse, *_ = prepared()
    figures = sparse.metrics()
    for name, weight in sparse.weights.items():
        whole = (weight.values.abs() + weight.hidden.abs()).sum()
        assert figures["layers"][name]["kept_magnitude"] == pytest.approx(
            float(weight.values.abs().sum() / whole)
        )
    assert figures["mask_diversity_log10"] == pytest.approx(2 * bs.mask_diversity("2:4t", (8, 8)).log10)
    assert figures["density"] == 0.5


def test_times_are_measured() -> None:
    sparse, model, optimizer = prepared()
    assert sparse.metrics()["refresh_share"] == 0.0
    train(sparse, model, optimizer, 8)
    figures = sparse.metrics()
    assert figures["refresh_seconds"] > 0
    assert figures["step_seconds"] > 0
    assert figures["refresh_share"] == pytest.approx(
        figures["refresh_seconds"] / (2 * figures["step_seconds"])
    )


def test_a_clock_of_refreshes_at_every_step_knows_what_a_step_is_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 10.5, 11.0, 11.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock()
    for _ in range(4):
        clock.tick(0.1)
    figures = clock.figures(1)
    assert figures["step_seconds"] == pytest.approx(0.4)
    assert figures["refresh_share"] == pytest.approx(0.25)


def test_observers_are_told_after_every_refresh() -> None:
    sparse, model, optimizer = prepared()
    kept: list[int] = []
    told: list[Any] = []
    sparse.observe(told.append).observe(lambda _: kept.append(int((model[0].weight != 0).sum())))
    train(sparse, model, optimizer, 7)
    assert [row["step"] for row in told] == [2, 4, 6]
    assert kept == [32] * 3  # the model is masked again when observers look at it
    assert told[-1]["sad"] == sparse.metrics()["sad"]


def test_hysteresis_calms_flips() -> None:
    changes = []
    for hysteresis in (0.0, 0.5):
        sparse, model, optimizer = prepared(hysteresis=hysteresis)
        train(sparse, model, optimizer, 20)
        changes.append(sum(row["sad"] for row in sparse.history))
    assert changes[1] < changes[0] / 2


def test_masks_from_a_moving_average_change_less() -> None:
    changes = []
    for average in (None, 0.95):
        sparse, model, optimizer = prepared(average=average)
        train(sparse, model, optimizer, 20)
        changes.append(sum(row["sad"] for row in sparse.history))
    assert changes[1] < changes[0]


def test_flips_fall_as_lambda_grows_on_digits() -> None:
    """The paper's claim, on real data: the larger lambda, the fewer entries change."""
    data = digits()
    changes = []
    for decay in (-2e-4, 0.0, 2e-3, 2e-2):
        model = mlp((64, 100, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-5)
        sparse = bs.Sparsifier("2:4t", rule=SrSte(decay), update_every=5, ignore=[]).prepare(model, optimizer)
        generator = torch.Generator().manual_seed(0)
        for _ in range(6):
            for batch in torch.randperm(len(data.train_labels), generator=generator).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(
                    model(data.train_inputs[batch]), data.train_labels[batch]
                ).backward()
                optimizer.step()
        changes.append(sum(row["sad"] for row in sparse.history))
    assert changes == sorted(changes, reverse=True)
    assert len(set(changes)) == len(changes)


def test_a_picture_of_the_run(tmp_path: Path) -> None:
    from bisparse.train.measures.picture import draw_history

    sparse, model, optimizer = prepared()
    train(sparse, model, optimizer, 8)
    path = draw_history(sparse.history, tmp_path / "flips.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="no refresh"):
        draw_history([], tmp_path / "none.png")


def test_figures_of_a_dense_tail_are_dense() -> None:
    sparse, model, optimizer = prepared(schedule=Schedule(dense_from=3))
    train(sparse, model, optimizer, 5)
    assert sparse.metrics()["density"] == sparse.metrics()["kept_magnitude"] == 1.0


def test_a_dense_run_has_no_figures() -> None:
    sparse, *_ = prepared(schedule=Schedule(dense_until=100))
    figures = sparse.metrics()
    assert figures["refreshes"] == 0
    assert figures["layers"] == {}
    assert sparse.history == []
