"""The parts of trained thresholds: estimator, granularity, reset, target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bisparse.train import Ramp
from bisparse.train.thresholds import LongTail, PerRow, Reset, Target, resolve_granularity
from bisparse.weights import Layout, as_matrices


def test_estimator_has_the_values_of_the_paper() -> None:
    points = torch.tensor([0.0, 0.2, -0.2, 0.4, 0.7, -1.0, 1.0 + 1e-9, -3.0], dtype=torch.float64)
    expected = torch.tensor([2.0, 1.2, 1.2, 0.4, 0.4, 0.4, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(LongTail()(points), expected, rtol=0.0, atol=1e-15)


def test_estimator_s_integral_is_not_one() -> None:
    x = torch.linspace(-1.5, 1.5, 3_000_001, dtype=torch.float64)
    assert torch.trapezoid(LongTail()(x), x).item() == pytest.approx(1.44, abs=1e-5)
    assert LongTail().integral == pytest.approx(1.44)
    narrow = LongTail(peak=1.0, knee=0.1, tail=0.5, cut=0.3)
    assert torch.trapezoid(narrow(x), x).item() == pytest.approx(narrow.integral, abs=1e-5)


def test_estimator_leaves_its_input_alone() -> None:
    x = torch.randn(50)
    before = x.clone()
    LongTail()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("numbers", [{"knee": 0.0}, {"knee": 2.0}, {"tail": 3.0}, {"tail": -1.0}])
def test_estimator_refuses_numbers_that_make_no_tail(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="an estimator needs"):
        LongTail(**numbers)


LAYOUTS = [
    ((6, 5), Layout()),
    ((6, 5), Layout("linear", 3)),
    ((6, 5), Layout("transposed")),
    ((4, 3, 3, 2), Layout("conv")),
    ((4, 3, 3), Layout("conv", 2)),
    ((4, 3, 3, 2), Layout("conv_transpose")),
    ((4, 3, 3, 2), Layout("conv_transpose", 2)),
    ((2, 5, 3), Layout("experts")),
    ((2, 5, 3), Layout("experts_transposed")),
]


@pytest.mark.parametrize("name", ["vector", "scalar", "matrix", "tile:2", "tile:4"])
@pytest.mark.parametrize(("shape", "layout"), LAYOUTS, ids=str)
def test_gather_is_the_transpose_of_spread(name: str, shape: tuple[int, ...], layout: Layout) -> None:
    granularity = resolve_granularity(name)
    thresholds = torch.randn(granularity.shape(shape, layout), dtype=torch.float64)
    values = torch.randn(shape, dtype=torch.float64)
    spread = granularity.spread(thresholds, shape, layout).expand(shape)
    gathered = granularity.gather(values, layout)
    assert gathered.shape == thresholds.shape
    assert (spread * values).sum().item() == pytest.approx((thresholds * gathered).sum().item(), rel=1e-12)


@pytest.mark.parametrize(("shape", "layout"), LAYOUTS, ids=str)
def test_a_vector_is_constant_along_rows_of_the_matrices(shape: tuple[int, ...], layout: Layout) -> None:
    thresholds = torch.arange(float(torch.Size(PerRow().shape(shape, layout)).numel()))
    thresholds = thresholds.reshape(PerRow().shape(shape, layout))
    rows = as_matrices(PerRow().spread(thresholds, shape, layout).expand(shape).contiguous(), layout)
    assert torch.equal(rows, rows[..., :1].expand_as(rows))
    outputs = shape[0] if layout.kind in ("linear", "conv") else rows[..., 0].unique().numel()
    assert rows.unique().numel() == outputs


def test_a_tile_is_the_same_for_a_weight_and_its_transpose() -> None:
    tile, layout = resolve_granularity("tile:2"), Layout()
    thresholds = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    whole = tile.spread(thresholds, (4, 3), layout)
    assert whole.tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4], [3, 3, 4]]
    assert torch.equal(tile.spread(thresholds.mT, (3, 4), layout), whole.T)


@pytest.mark.parametrize("text", ["rows", "tile", "tile:x", "tile:65", "tile:0", "vector:2"])
def test_unknown_granularity(text: str) -> None:
    with pytest.raises(ValueError, match=r"granularity|tile"):
        resolve_granularity(text)


def _distances(thresholds: Tensor) -> Tensor:
    return torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.4, 0.8, 0.1, 0.2]]) - thresholds


def test_reset_to_zero() -> None:
    thresholds = torch.full((2, 1), 0.85)
    reset = Reset(level=0.125)
    assert reset.due(1, 8)
    assert not reset.due(2, 8)
    reset.apply_(thresholds, _distances(thresholds))
    assert torch.equal(thresholds, torch.zeros(2, 1))


def test_floor_leaves_exactly_the_level() -> None:
    thresholds = torch.tensor([[1.0], [2.0]])
    reset = Reset("floor", level=0.25)
    reset.apply_(thresholds, _distances(thresholds))
    assert int((_distances(thresholds) > 0).sum()) == 2
    assert (thresholds[1] - thresholds[0]).item() == pytest.approx(1.0)


def test_no_reset() -> None:
    assert not Reset("off").due(0, 8)
    with pytest.raises(ValueError, match="choose"):
        Reset("never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="share of the weight"):
        Reset(level=1.0)


def test_target_pulls_harder_the_further_away() -> None:
    target = Target(0.1, gain=2.0)
    assert target.factor(0.1, 5) == pytest.approx(1.0)
    assert target.factor(0.2, 5) == pytest.approx(4.0)
    assert target.factor(0.05, 5) == pytest.approx(0.25)
    assert target.factor(0.0, 5) == pytest.approx(1 / 20)
    assert target.factor(1.0, 0) == pytest.approx(20.0)
    assert Target(0.1, gain=2.0, limit=1e3).factor(1.0, 0) == pytest.approx(100.0)


def test_target_along_a_ramp() -> None:
    target = Target(0.1, Ramp(10, 20))
    assert target.at(10) == 1.0
    assert target.at(15) == pytest.approx(0.1 + 0.9 * 0.5**3)
    assert target.at(25) == 0.1


@pytest.mark.parametrize(
    "numbers",
    [{"density": 0.0}, {"density": 1.0}, {"density": 0.5, "gain": 0.0}, {"density": 0.5, "limit": 1.0}],
)
def test_target_out_of_range(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"density=|gain=|limit="):
        Target(**numbers)
