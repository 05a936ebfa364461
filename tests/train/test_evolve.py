"""Evolving topologies: what goes, what comes, exact counts, values and optimizer state."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bisparse as bs
from bisparse.train import Evolve, Fraction, Newborn, RigL, Schedule, Set, Snfs, Static, Topology
from bisparse.train.topology import DROPS, GROWS, REDISTRIBUTIONS
from bisparse.train.topology.drop import MagnitudeGradient, TwoSided
from bisparse.train.topology.selection import largest


class Bench:
    """One weight whose gradients the test writes."""

    def __init__(
        self, pattern: str, topology: Topology | str, shape: tuple[int, int] = (8, 8), **options: Any
    ) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(shape[1], shape[0], bias=False)
        optimizer = options.pop("optimizer", None)
        self.optimizer = optimizer(self.layer.parameters()) if optimizer else torch.optim.SGD(
            self.layer.parameters(), lr=0.1, momentum=0.9
        )  # fmt: skip
        settings: dict[str, Any] = {"schedule": Schedule(every=2, freeze=100), "ignore": []} | options
        self.sparse = bs.Sparsifier(pattern, topology=topology, **settings).prepare(
            self.layer, self.optimizer
        )

    def step(self, gradient: Tensor | None = None, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = self.layer.weight.shape
        self.layer.weight.grad = (
            torch.randn(shape, generator=generator) if gradient is None else gradient.clone()
        )
        self.optimizer.step()

    @property
    def mask(self) -> Tensor:
        return self.sparse.masks["weight"].clone()

    @property
    def values(self) -> Tensor:
        return self.layer.weight.detach().clone()

    @property
    def momentum(self) -> Tensor:
        return self.optimizer.state[self.layer.weight]["momentum_buffer"]


def after_the_step(bench: Bench, gradient: Tensor) -> Tensor:
    """What the weight will be when masks are chosen: the optimizer's own step on kept entries."""
    kept = gradient * bench.mask
    return bench.values - 0.1 * (0.9 * bench.momentum + kept)


def test_the_largest_by_eye() -> None:
    scores = torch.tensor([[5.0, 1.0, 3.0], [3.0, 9.0, 0.0]])
    allowed = torch.tensor([[True, True, True], [True, False, True]])
    assert largest(scores, allowed, 2).tolist() == [
        [True, False, True],
        [False, False, False],
    ]  # ties: the first
    assert not largest(scores, allowed, 0).any()
    assert torch.equal(largest(scores, allowed, 5), allowed)
    with pytest.raises(ValueError, match="6 entries are asked of 5"):
        largest(scores, allowed, 6)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6), st.floats(0, 1))
def test_two_sided_removal_counts_each_sign_for_itself(kept: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, mask = torch.randn(8, 8, generator=generator), torch.zeros(64, dtype=torch.bool)
    mask[torch.randperm(64, generator=generator)[:kept]] = True
    view = _view(values * mask.view(8, 8), mask.view(8, 8))
    left = TwoSided().surviving(view, share)
    for side in (view.values > 0, view.values < 0):
        count = int(side.sum())
        survivors, gone = view.values[side & left].abs(), view.values[side & ~left].abs()
        assert len(gone) == math.floor(share * count + 1e-9)
        assert not len(gone) or not len(survivors) or gone.max() <= survivors.min()
    assert not (left & ~mask.view(8, 8)).any()


def _view(values: Tensor, mask: Tensor, gradient: Tensor | None = None) -> Any:
    from bisparse.train.topology.view import View

    return View(None, values, mask, gradient, gradient, 0)  # type: ignore[arg-type]


def test_drop_scores_by_eye() -> None:
    values = torch.tensor([[4.0, -3.0, 2.0, -1.0]])
    view = _view(values, torch.ones_like(values, dtype=torch.bool), torch.tensor([[0.1, 1.0, 1.0, 5.0]]))
    assert DROPS["magnitude"].surviving(view, 0.5).tolist() == [[True, True, False, False]]
    assert DROPS["two-sided"].surviving(view, 0.5).tolist() == [[True, True, False, False]]
    assert DROPS["taylor"].surviving(view, 0.5).tolist() == [[False, True, False, True]]  # .4, 3, 2, 5
    assert DROPS["magnitude-gradient"].surviving(view, 0.5).tolist() == [
        [True, False, False, True]
    ]  # 4.1 4 3 6


def test_the_sign_bug_of_a_reference_is_not_ours() -> None:
    values = torch.tensor([[-5.0, -4.0, -3.0, -2.0, -1.0]])
    left = TwoSided().surviving(_view(values, torch.ones_like(values, dtype=torch.bool)), 0.4)
    assert left.tolist() == [[True, True, True, False, False]]


def test_set_keeps_the_count_and_grows_where_nothing_was() -> None:
    bench = Bench("unstructured:0.75", Set())
    bench.step()
    before = bench.mask
    gradient = torch.randn(8, 8)
    moved = after_the_step(bench, gradient)
    momentum = 0.9 * bench.momentum + gradient * before
    bench.step(gradient)
    after = bench.mask
    survivors, grown = before & after, after & ~before
    assert int(before.sum()) == int(after.sum()) == 16
    positive, negative = int((moved * before > 0).sum()), int((moved * before < 0).sum())
    assert int(grown.sum()) == positive * 3 // 10 + negative * 3 // 10 > 0
    torch.testing.assert_close(bench.values[survivors], moved[survivors])
    torch.testing.assert_close(bench.momentum[survivors], momentum[survivors])
    assert not bench.momentum[~survivors].any()
    assert not bench.values[~after].any()
    assert not bench.sparse.weights["weight"].hidden.any()
    assert 0 < bench.values[grown].abs().max() < 0.5


def test_rigl_keeps_the_largest_and_grows_at_the_largest_gradients() -> None:
    bench = Bench("unstructured:0.75", RigL(fraction=Fraction(0.5)))
    bench.step()
    before, gradient = bench.mask, torch.randn(8, 8)
    moved = after_the_step(bench, gradient)
    bench.step(gradient)
    after = bench.mask
    kept = largest(moved.abs(), before, 8)
    assert torch.equal(after, kept | largest(gradient.abs(), ~kept, 8))
    returning = after & before & ~kept
    assert returning.any(), "choose a seed with a returning weight: the test is about them"
    torch.testing.assert_close(bench.values[after & before], moved[after & before])
    assert not bench.values[after & ~before].any()
    assert bench.momentum[returning].all()
    assert not bench.momentum[after & ~before].any()


def test_gradients_may_be_averaged() -> None:
    one, two = (Bench("unstructured:0.75", RigL(gradients=n)) for n in (1, 2))
    first, second = torch.randn(8, 8), torch.randn(8, 8) * 0.1
    for bench in (one, two):
        start = bench.mask
        bench.step(first)
        bench.step(second)
    kept = two.mask & start
    grown = two.mask & ~start
    assert torch.equal(grown, largest((first + second).abs(), ~kept, int(grown.sum())) & ~start)
    assert not torch.equal(one.mask, two.mask)
    assert "gradient" not in two.sparse.weights["weight"].extra


def test_averaged_gradients_are_a_mean_wherever_their_size_counts() -> None:
    drop = MagnitudeGradient()
    one, three = (
        Bench("unstructured:0.75", Evolve(drop=drop, gradients=n, fraction=Fraction(0.5))) for n in (1, 3)
    )
    same = 0.2 * torch.randn(8, 8)
    for bench in (one, three):
        for _ in range(4):  # masks change after the second and the fourth; a window may be cut short
            bench.step(same)
    assert torch.equal(one.mask, three.mask)


def test_momentum_grows_by_the_average_of_all_gradients() -> None:
    bench = Bench("unstructured:0.75", Snfs(redistribute=None, beta=0.5))
    gradients = [torch.randn(8, 8) for _ in range(2)]
    start = bench.mask
    for gradient in gradients:
        bench.step(gradient)
    average = 0.25 * gradients[0] + 0.5 * gradients[1]
    torch.testing.assert_close(bench.sparse.weights["weight"].extra["momentum"], average)
    grown, kept = bench.mask & ~start, bench.mask & start
    assert grown.any()
    assert average[grown].abs().min() > average[~start & ~bench.mask].abs().max()
    assert int(kept.sum()) >= 16 - 3


def test_nobody_looks_at_gradients_once_masks_stay() -> None:
    bench = Bench("unstructured:0.75", Snfs(redistribute=None))
    bench.step()
    bench.sparse.freeze()
    average = bench.sparse.weights["weight"].extra["momentum"].clone()
    bench.step()
    assert torch.equal(bench.sparse.weights["weight"].extra["momentum"], average)


def test_unfired_entries_grow_first() -> None:
    bench = Bench("unstructured:0.75", Evolve(grow=GROWS["random-unfired"], fraction=Fraction(0.5)))
    explored = [bench.sparse.metrics()["explored"]]
    for _ in range(12):
        bench.step()
        explored.append(bench.sparse.metrics()["explored"])
    assert explored[::2] == [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]  # 8 new ones at every refresh


def test_the_rate_of_exploration_is_monotone_from_the_density_to_1() -> None:
    bench = Bench("unstructured:0.75", "set")
    rates, union = [], bench.mask
    for step in range(40):
        bench.step(seed=step)
        union |= bench.mask
        rates.append(bench.sparse.metrics()["explored"])
        assert rates[-1] == int(union.sum()) / 64
    assert rates == sorted(rates)
    assert 0.25 <= rates[0] < rates[-1] <= 1.0
    figures = bench.sparse.metrics()
    assert figures["edge_distance"] == figures["sad"] / 32
    assert figures["edge_distance_from_start"] == figures["sad_from_start"] / 32


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_the_fraction_falls_from_start_to_floor(shape: Any) -> None:
    course = Fraction(0.4, shape, 0.1, end=10)
    shares = [course.at(step) for step in range(13)]
    assert shares[0] == 0.4
    assert shares[5] == pytest.approx(0.25)
    assert shares[10:] == pytest.approx([0.1, 0.1, 0.1])
    assert shares == sorted(shares, reverse=True)
    assert Fraction(0.4).at(10**9) == 0.4


def test_at_the_end_of_the_course_nothing_changes_any_more() -> None:
    bench = Bench("unstructured:0.75", "rigl", schedule=Schedule(every=1, freeze=6))
    seen = []
    for step in range(9):
        before = bench.mask
        bench.step(seed=step)
        seen.append(int((before ^ bench.mask).sum()))
    assert seen[0] > 0
    assert seen[5:] == [0, 0, 0, 0]  # the fraction is 0 at step 6, then masks are frozen


def test_static_masks_stay_and_are_random() -> None:
    bench, other = Bench("unstructured:0.75", "static"), Bench("unstructured:0.75", Static(seed=1))
    first = bench.mask
    for step in range(6):
        bench.step(seed=step)
    assert torch.equal(bench.mask, first)
    assert not torch.equal(first, other.mask)
    by_magnitude = Bench("unstructured:0.75", Static(first="magnitude"))
    torch.manual_seed(0)
    weight = nn.Linear(8, 8, bias=False).weight.detach().abs()
    assert torch.equal(by_magnitude.mask, bs.solve_mask(weight, "unstructured:0.75").mask)


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        partial(torch.optim.AdamW, amsgrad=True, fused=True),
        partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
    ],
    ids=["adam", "adamw", "rmsprop", "adagrad", "fused amsgrad", "fused sgd"],
)
@pytest.mark.parametrize("topology", ["set", "rigl"])
def test_every_state_of_every_optimizer_is_carried_or_reset(optimizer: Any, topology: str) -> None:
    bench = Bench("unstructured:0.75", topology, optimizer=lambda p: optimizer(p, lr=0.01, weight_decay=0.1))
    for step in range(3):
        bench.step(seed=step)
    before = bench.mask
    states = {
        key: state.clone()
        for key, state in bench.optimizer.state[bench.layer.weight].items()
        if state.shape == before.shape
    }
    assert states
    bench.step(seed=9)
    survivors = before & bench.mask
    for key in states:
        state = bench.optimizer.state[bench.layer.weight][key]
        assert state[survivors].all(), key
        assert not state[~survivors].any(), key
    assert not bench.sparse.weights["weight"].hidden.any()
    assert not bench.values[~bench.mask].any()


@pytest.mark.parametrize(
    ("optimizer", "key", "start"),
    [
        (lambda p: torch.optim.Rprop(p, lr=0.01), "step_size", 0.01),
        (lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1), "sum", 0.1),
    ],
    ids=["rprop", "adagrad"],
)
def test_states_that_do_not_begin_with_zero(optimizer: Any, key: str, start: float) -> None:
    bench = Bench("unstructured:0.75", "set", optimizer=optimizer)
    for step in range(2):
        bench.step(seed=step)
    before = bench.mask
    for step in range(2):
        bench.step(seed=step + 2)
    state, survivors = bench.optimizer.state[bench.layer.weight][key], before & bench.mask
    assert 0 < survivors.sum() < before.sum()
    assert (state[survivors] != start).all()
    assert (state[~survivors] == start).all()


def test_what_prepare_drops_is_forgotten_at_the_first_step() -> None:
    bench = Bench("unstructured:0.75", "static")
    weight = bench.sparse.weights["weight"]
    assert weight.hidden.count_nonzero() == 48
    bench.step()
    assert not weight.hidden.any()
    assert "values" not in bench.sparse.state_dict()["weights"]["weight"]


@pytest.mark.parametrize("kind", ["zero", "normal", "he", "xavier"])
def test_new_weights_start_as_told(kind: Any) -> None:
    bench = Bench("unstructured:0.5", Set(newborn=Newborn(kind, 0.5)), (40, 80))
    bench.step()
    before = bench.mask
    bench.step()
    new = bench.values[bench.mask & ~before]
    limit = {"zero": 0.0, "he": math.sqrt(6 / 80), "xavier": math.sqrt(6 / 120), "normal": 2.5}[kind]
    assert len(new) > 200
    assert new.abs().max() <= limit
    deviation = {"zero": 0.0, "normal": 0.5}.get(kind, limit / math.sqrt(3))
    assert new.std() == pytest.approx(deviation, rel=0.15)


def test_a_ramp_makes_it_sparser_on_the_way() -> None:
    from bisparse.train import Ramp

    bench = Bench("unstructured:0.9", "rigl", schedule=Schedule(every=1, freeze=20, ramp=Ramp(0, 10, 0.5)))
    counts = [int(bench.mask.sum())]
    for step in range(12):
        bench.step(seed=step)
        counts.append(int(bench.mask.sum()))
    assert counts[0] == 32
    assert counts == sorted(counts, reverse=True)
    assert counts[10:] == [6, 6, 6]


def test_a_dense_warm_up_and_tail() -> None:
    bench = Bench(
        "unstructured:0.75", Set(first="magnitude"), schedule=Schedule(every=2, dense_until=4, dense_from=9)
    )
    for step in range(4):
        assert bench.mask.all()
        bench.step(seed=step)
    assert int(bench.mask.sum()) == 16
    assert bench.momentum.count_nonzero() == 16
    first = bench.mask
    for step in range(4):
        bench.step(seed=step)
    assert not torch.equal(first, bench.mask)
    bench.step()
    assert bench.mask.all()


def test_without_a_gradient_the_mask_stays() -> None:
    model = nn.ModuleDict({"used": nn.Linear(8, 8), "unused": nn.Linear(8, 8)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = bs.Sparsifier(
        "unstructured:0.5", topology="rigl", schedule=Schedule(every=1, freeze=9), ignore=[]
    ).prepare(model, optimizer)
    before = {name: mask.clone() for name, mask in sparse.masks.items()}
    for _ in range(2):
        optimizer.zero_grad()
        model["used"](torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
    assert torch.equal(before["unused.weight"], sparse.masks["unused.weight"])
    assert not torch.equal(before["used.weight"], sparse.masks["used.weight"])


@pytest.mark.parametrize("merit", REDISTRIBUTIONS)
def test_redistribution_moves_weights_between_layers_and_loses_none(merit: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    topology = Evolve(grow=GROWS["momentum"], redistribute=REDISTRIBUTIONS[merit], fraction=Fraction(0.4))
    sparse = bs.Sparsifier(
        "unstructured:0.8", allocation="erk", topology=topology, schedule=Schedule(every=2), ignore=[]
    ).prepare(model, optimizer)
    start = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(torch.randn(16, 8)), torch.randn(16, 4)).backward()
        optimizer.step()
        counts = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
        assert sum(counts.values()) == sum(start.values())
        for name, weight in sparse.weights.items():
            assert weight.pattern.kept(weight.mask.numel()) == counts[name]  # type: ignore[union-attr]
            assert not weight.hidden.any()
    moved = max(abs(counts[name] - start[name]) for name in start)
    assert moved <= 1 if merit == "nonzeros" else moved > 5
    from bisparse.train.mask_check import check_masks

    assert all(check.holds for check in check_masks(sparse.weights))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 40)), min_size=1, max_size=6), st.floats(0, 1))
def test_shares_add_up_and_no_layer_is_overfull(layers: list[tuple[float, int]], share: float) -> None:
    from bisparse.train.topology.redistribution import shared_out

    merits, room = [m for m, _ in layers], [r for _, r in layers]
    total = int(share * sum(room))
    shares = shared_out(total, merits, room)
    assert sum(shares) == total
    assert all(0 <= s <= r for s, r in zip(shares, room, strict=True))


def test_shares_by_eye() -> None:
    from bisparse.train.topology.redistribution import shared_out

    assert shared_out(10, [3.0, 1.0, 1.0], [100, 100, 100]) == [6, 2, 2]
    assert shared_out(10, [3.0, 1.0, 1.0], [4, 100, 100]) == [4, 3, 3]  # what overflows is passed on
    assert shared_out(3, [0.0, 0.0], [2, 2]) == [2, 1]
    with pytest.raises(ValueError, match="5 weights have no place: the layers have room for 4"):
        shared_out(5, [1.0], [4])


def test_refusals() -> None:
    layer = nn.Linear(8, 8)
    with pytest.raises(ValueError, match=r"unknown topology 'rigel'; choose one of projection, static, set"):
        bs.Sparsifier("2:4", topology="rigel")
    with pytest.raises(TypeError, match="topology: expected a name or an object of Topology"):
        bs.Sparsifier("2:4", topology=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a cosine share needs an end: Schedule\(freeze=STEP\)"):
        bs.Sparsifier("unstructured:0.9", topology="rigl")
    with pytest.raises(ValueError, match='Set forgets what it drops: its rule is "hard", not SrSte'):
        bs.Sparsifier("unstructured:0.9", topology="set", rule="sr-ste", ignore=[]).prepare(layer)
    with pytest.raises(ValueError, match="2:4t fixes the number of weights in every tile"):
        bs.Sparsifier("2:4t", topology="snfs", schedule=Schedule(freeze=9), ignore=[]).prepare(layer)
    for wrong in ({"start": 1.5}, {"floor": 0.5}, {"shape": "step"}, {"end": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Fraction(**wrong)  # type: ignore[arg-type]
    for wrong in ({"first": "snip"}, {"gradients": 0}, {"beta": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Evolve(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose zero, normal, he or xavier"):
        Newborn("ones")  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_is_told_with_weight_and_step() -> None:
    bench = Bench("unstructured:0.75", "rigl")
    bench.step()
    with pytest.raises(ValueError, match=r"weight, step 2: the weight at \[0, 0\] is nan"):
        bench.step(torch.full((8, 8), float("nan")))
