"""Measure, then choose: what is observed, timed, swapped and put back. Times are made up where a choice is tested."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bisparse as bs
from bisparse.acceleration import choose, entry, time_layer
from bisparse.acceleration.candidates import CANDIDATES, Candidate
from bisparse.acceleration.observe import observe, runner, undisturbed
from bisparse.acceleration.timing import Cold, LayerTimes, time_calls
from bisparse.acceleration.whole import Swap, Whole, compare_whole
from bisparse.nn import PackedConv2d, PackedLinear, SparseLinear


def mask_(model: nn.Module, pattern: str = "4:8") -> nn.Module:
    """Mask every linear layer by magnitude."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight.masked_fill_(~bs.solve_mask(layer.weight.abs(), pattern).mask, 0)
    return model


class Net(nn.Module):
    """Two equal layers, one of another size, a dense one, one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
        self.out = nn.Linear(64, 32, bias=False)
        self.spare = nn.Linear(64, 32)
        mask_(self)
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(self.out(x.mean(1)))


Times = dict[str, dict[str, float]]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Replace the clock by given seconds: ``dense`` of a layer is 1, of its packed form what the test says."""

    def install(
        packed: Callable[[nn.Module, int], float], whole: float = 0.5, difference: float = 0.0
    ) -> list[Any]:
        timed: list[tuple[Any, ...]] = []

        def fake(dense: nn.Module, built: dict[str, nn.Module], x: Tensor, **_: Any) -> LayerTimes:
            tokens = x.numel() // x.shape[-1]
            timed.append((tuple(dense.weight.shape), tokens))
            seconds = {"dense": 1.0} | dict.fromkeys(built, packed(dense, tokens))
            return LayerTimes(seconds, dict.fromkeys(built, difference))

        monkeypatch.setattr(choose, "time_layer", fake)
        monkeypatch.setattr(entry, "compare_whole", lambda *_: Whole(1.0, whole, 1e-7))
        return timed

    return install


def test_what_is_faster_is_swapped_and_equal_layers_are_timed_once(made_up: Any) -> None:
    timed = made_up(lambda layer, _: 0.5 if layer.weight.shape[0] == 64 else 0.99)
    model, x = Net(), torch.randn(3, 5, 64)
    expected = model(x)
    report = bs.accelerate_(model, x, show=False)
    assert timed == [((64, 64), 15), ((32, 64), 3)]
    assert report.swapped == ("blocks.0", "blocks.1")
    assert isinstance(model.blocks[1], PackedLinear)
    assert type(model.out) is nn.Linear
    rows = {row.name: row for row in report.layers}
    assert (rows["blocks.1"].tokens, rows["blocks.1"].calls, rows["blocks.1"].pattern) == (15, 1, "4:8")
    assert (rows["blocks.0"].choice, rows["blocks.0"].reason) == ("packed", "2.00x")
    assert (rows["out"].choice, rows["out"].reason) == ("dense", "1.01x, less than 1.05x")
    assert (rows["spare"].choice, rows["spare"].reason) == ("dense", "never called as a module")
    assert report.notes[0] == "left as they are: 1 (not N:M sparse)"
    assert report.speedup == 2.0
    assert report.sparse_bytes < 0.6 * report.dense_bytes
    torch.testing.assert_close(model(x), expected)


def test_a_model_that_is_slower_as_a_whole_is_put_back(made_up: Any) -> None:
    made_up(lambda *_: 0.5, whole=1.03)
    model = Net()
    report = bs.accelerate_(model, torch.randn(1, 1, 64), show=False)
    assert report.rolled_back
    assert report.swapped == ()
    assert report.speedup == 1.0
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert "put back" in report.layers[0].reason
    assert "put back" in str(report)


def test_a_layer_that_computes_something_else_is_never_chosen(made_up: Any) -> None:
    made_up(lambda *_: 0.1, difference=0.1)
    report = bs.accelerate_(Net(), torch.randn(1, 1, 64), show=False)
    assert report.swapped == ()
    assert report.layers[0].reason == "its output differs from the dense one by 1.0e-01"


def test_calls_with_several_numbers_of_tokens_are_summed(made_up: Any) -> None:
    """A prompt of 100 tokens, then 9 single ones: slower once, faster nine times."""
    made_up(lambda _, tokens: 2.0 if tokens == 100 else 0.5)

    def generate(model: nn.Module) -> None:
        model(torch.randn(1, 100, 64))
        for _ in range(9):
            model(torch.randn(1, 1, 64))

    report = bs.accelerate_(Net(), generate, show=False)
    rows = [row for row in report.layers if row.name == "blocks.0"]
    assert [(row.tokens, row.calls, row.dense_us, row.sparse_us) for row in rows] == [
        (1, 9, 1e6, 5e5), (100, 1, 1e6, 2e6)
    ]  # fmt: skip
    assert rows[0].reason == f"{10 / 6.5:.2f}x over all calls"


def test_a_copy_leaves_the_model_alone(made_up: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(lambda *_: 0.5)
    model = Net()
    result = bs.accelerate(model, torch.randn(1, 1, 64))
    assert type(model.blocks[0]) is nn.Linear
    assert isinstance(result.model.blocks[0], PackedLinear)
    printed = capsys.readouterr().out
    assert printed == f"{result.report}\n"
    assert "blocks.0" in printed
    assert result.report.to_dict()["speedup"] == 2.0


def test_a_candidate_is_one_entry_of_a_table(made_up: Any) -> None:
    """A kind that refuses says why, and another may still be used."""
    made_up(lambda *_: 0.5)
    refusing = Candidate(
        "other", (nn.Linear,), ("inference",), lambda *_: "needs a moon", CANDIDATES[0].build
    )
    report = bs.accelerate_(Net(), torch.randn(1, 1, 64), candidates=[refusing], show=False)
    assert report.layers[0].reason == "needs a moon"
    report = bs.accelerate_(Net(), torch.randn(1, 1, 64), candidates=[refusing, *CANDIDATES], show=False)
    assert report.layers[0].choice == "packed"


def test_convolutions_are_swapped_like_linear_layers(made_up: Any) -> None:
    made_up(lambda *_: 0.5)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 8, 3, groups=2)
    )
    bs.prune_(model, "2:4", ignore=["3"])
    x = torch.randn(2, 16, 5, 6)
    expected = model(x)
    report = bs.accelerate_(model, x, show=False)
    assert [(row.name, row.tokens, row.choice) for row in report.layers] == [
        ("0", 60, "packed"),
        ("2", 60, "packed"),
    ]
    assert report.notes[0] == "left as they are: 1 (conv: no sparse product)"
    assert [type(layer) for layer in model][::2] == [PackedConv2d, PackedConv2d]
    torch.testing.assert_close(model(x), expected)
    dense = bs.to_dense(model)
    assert [type(layer) for layer in dense][::2] == [nn.Conv2d, nn.Conv2d]
    torch.testing.assert_close(dense(x), expected)


def test_each_kind_of_sparse_layer_is_asked_about_its_own_layers_only() -> None:
    linear, conv, other = nn.Linear(8, 8), nn.Conv2d(8, 8, 1), nn.Bilinear(2, 2, 2)
    asked = {
        (layer, mode): [c.name for c in CANDIDATES if c.concerns(module, mode)]
        for layer, module in (("linear", linear), ("conv", conv), ("other", other))
        for mode in ("inference", "training")
    }
    assert asked["linear", "inference"] == ["packed", "2:4 tensor cores", "sparse"]
    assert asked["linear", "training"] == ["packed", "2:4t tensor cores", "sparse"]
    assert asked["conv", "inference"] == asked["other", "training"] == ["packed"]
    assert "need a CUDA device" in CANDIDATES[2].misfit(linear, bs.NM(2, 4), "inference")


def test_few_weights_are_offered_to_sparse_layers() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    sparse = CANDIDATES[-1]
    assert sparse.misfit(linear, bs.NM(4, 8), "training") == (
        "100% of the weights are kept: sparse layers pay below 35%"
    )
    linear.weight.data *= torch.rand_like(linear.weight) < 0.1
    assert sparse.misfit(linear, bs.NM(4, 8), "training") == ""
    built = sparse.build(linear, bs.NM(4, 8))
    assert isinstance(built, SparseLinear)
    times = time_layer(linear, {"sparse": built}, torch.randn(5, 64), mode="training", repeats=1)
    assert times.agrees("sparse", torch.float32)


@pytest.mark.parametrize(("density", "kind"), [(0.1, "sparse"), (0.5, "packed")])
def test_what_a_mask_keeps_learns_although_it_is_zero(made_up: Any, density: float, kind: str) -> None:
    """As after RigL, whose new weights start at 0: without the mask they would be lost."""
    made_up(lambda *_: 0.5)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    rows = torch.zeros(64, 64, dtype=torch.bool).index_fill_(1, torch.arange(0, 64, round(1 / density)), True)
    with torch.no_grad():
        model[0].weight.mul_(rows)
        model[0].weight[:, :8] = 0.0  # kept, but 0
    only = [candidate for candidate in CANDIDATES if candidate.name == kind]
    report = bs.accelerate_(
        model, torch.randn(4, 64), mode="training", masks={"0.weight": rows}, candidates=only, show=False
    )
    assert report.swapped == ("0",)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.randn(4, 64)).square().sum().backward()
    optimizer.step()
    learnt = model[0].to_linear().weight.detach() != 0
    assert learnt[:, :8].any()
    assert not (learnt & ~rows).any()


def test_masks_that_do_not_fit_are_refused() -> None:
    model, x = nn.Sequential(mask_(nn.Linear(64, 64))), torch.randn(1, 64)
    kept = model[0].weight != 0
    for masks, message in (
        ({"1.weight": kept}, r"weights that the model has not: \['1.weight'\]"),
        ({"0.weight": kept[1:]}, r"0.weight: a mask is boolean and shaped like the weight, \(64, 64\)"),
        ({"0.weight": kept.float()}, "a mask is boolean"),
        ({"0.weight": ~kept}, "0.weight: weights that the mask drops are not zero"),
    ):
        with pytest.raises(ValueError, match=message):
            bs.accelerate_(model, x, masks=masks)


def test_types_without_packed_products_stay_dense() -> None:
    report = bs.accelerate_(Net().double(), torch.randn(1, 1, 64).double(), show=False)
    assert report.layers[0].reason.startswith(
        "packed products take float32 and bfloat16, not float64; 2:4 tensor"
    )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_with_the_real_clock_the_model_computes_the_same(mode: str) -> None:
    """No time is asserted: whatever was chosen, outputs, gradients, modes and buffers are as they were."""
    torch.manual_seed(0)
    model = mask_(
        nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.Dropout(), nn.Linear(256, 128)), "2:4"
    )
    model.train()
    model[0].bias.grad = torch.ones(256)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "weight" not in name}
    x = torch.randn(4, 256)
    model.eval()
    expected = model(x)
    model.train()
    report = bs.accelerate_(model, x, mode=mode, min_gain=1.0, show=False)  # type: ignore[arg-type]
    assert model.training
    assert all(row.dense_us and row.sparse_us for row in report.layers)
    assert report.rolled_back or report.speedup > 0.9
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items() if name in before
    )
    if "0" not in report.swapped:
        assert torch.equal(model[0].bias.grad, torch.ones(256))
    model.eval()
    torch.testing.assert_close(model(x), expected)


def test_the_layers_of_a_trained_copy_still_learn() -> None:
    layer = mask_(nn.Linear(64, 64))
    packed = CANDIDATES[0].build(layer, bs.NM(4, 8))
    times = time_layer(layer, {"packed": packed}, torch.randn(2, 64), mode="training", repeats=1)
    assert times.agrees("packed", torch.float32)
    assert times.seconds.keys() == {"dense", "packed"}
    wrong = nn.Linear(64, 64)
    times = time_layer(layer, {"wrong": wrong}, torch.randn(2, 64), repeats=1)
    assert not times.agrees("wrong", torch.float32)


def test_observing_counts_calls_and_leaves_no_hooks() -> None:
    model = Net()
    seen = observe(
        model,
        {"a": model.blocks[0], "s": model.spare},
        runner({"x": torch.randn(2, 7, 64)}, model, "inference"),
    )
    assert [(use.tokens, use.calls, tuple(use.x.shape)) for use in seen["a"]] == [(14, 1, (2, 7, 64))]
    assert seen["s"] == []
    assert not model.blocks[0]._forward_pre_hooks


def test_a_run_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].eval()
    state, random_ = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    with undisturbed(model, "training"):
        runner(torch.randn(8, 4), model, "training")(model)
        assert model[0].weight.grad is not None
    assert model[0].weight.grad is None
    assert (model[0].training, model[1].training) == (False, True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_)


def test_samples_are_taken_in_turn() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = time_calls(calls, before=lambda: order.append("|"), device=torch.device("cpu"), repeats=2)
    assert "".join(order) == "abab|b|a|a|b"
    assert all(seconds > 0 for seconds in times.values())


def test_the_cache_is_flushed_only_as_far_as_the_model_would() -> None:
    assert Cold(0)._memory.numel() == 0
    assert Cold(1 << 20)._memory.nbytes == 1 << 20


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="mode='fast'"):
        bs.accelerate_(Net(), torch.zeros(1), mode="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"min_gain=0\.5"):
        bs.accelerate_(Net(), torch.zeros(1), min_gain=0.5)


class ReadsWeight(nn.Module):
    """Reads what a packed layer has not, as T5 does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        mask_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).to(self.last.weight.dtype))


def test_a_model_that_fails_with_sparse_layers_is_put_back(made_up: Any) -> None:
    made_up(lambda *_: 0.5)
    model, x = ReadsWeight(), torch.randn(1, 64)
    expected = model(x)
    report = bs.accelerate_(model, x, show=False)
    assert report.rolled_back
    assert report.swapped == ()
    assert "put back: the model fails with sparse layers (AttributeError: 'PackedLinear'" in str(report)
    assert report.speedup == 1.0
    assert torch.equal(model(x), expected)


def test_layers_with_hooks_stay_dense(made_up: Any) -> None:
    made_up(lambda *_: 0.5)
    model, calls = Net(), []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    report = bs.accelerate_(model, torch.randn(1, 1, 64), show=False)
    assert "blocks.0" not in report.swapped
    assert "blocks.1" in report.swapped
    assert any("hooks" in note for note in report.notes)
    calls.clear()
    model(torch.randn(1, 1, 64))
    assert calls == [1]


def test_dropout_does_not_count_as_a_difference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 8))
    swaps = [Swap("0", model[0], copy.deepcopy(model[0]))]
    x = torch.randn(4, 64)
    assert compare_whole(model, swaps, lambda net: net(x)).difference == 0.0
