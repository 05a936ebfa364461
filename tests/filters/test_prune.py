"""Filters really removed: same outputs as with zeros, smaller tensors, ordinary modules."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.filters.networks import NETWORKS, Attention, Branches, HardCoded, Residual, Shuffled
from torch import Tensor, nn
from torch.nn import functional as F

import bisparse as bs
from bisparse.compress.calibration import Call
from bisparse.filters import apply_plan, apply_plan_, load_plan, prune_filters, prune_filters_, save_plan
from bisparse.report import render
from bisparse.zoo.lenet import lenet_300_100
from bisparse.zoo.resnet_cifar import resnet_cifar


def made(name: str) -> tuple[nn.Module, list[Tensor]]:
    """A network with random weights and statistics, and calibration data."""
    torch.manual_seed(0)
    kind, shape = NETWORKS[name]
    model = kind().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model, list(torch.randn(24, *shape).split(8))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["residual", "branches", "attention"])
@pytest.mark.parametrize("resource", ["params", "flops"])
def test_the_budget_is_met_and_the_small_network_is_the_masked_one(name: str, resource: str) -> None:
    model, data = made(name)
    before = copy.deepcopy(model)
    pruned = prune_filters(model, f"{resource}:0.6", calibration=data, latency=False)
    report = pruned.report
    kept = 1 - (report.parameters_removed if resource == "params" else report.operations_removed)
    assert 0.35 < kept <= 0.6
    assert report.deviation < 1e-5
    assert report.after.parameters == sum(p.numel() for p in pruned.model.parameters())
    assert report.before.parameters == sum(p.numel() for p in model.parameters())
    assert shapes(model) == shapes(before)
    assert pruned.model(data[0]).shape == model(data[0]).shape
    assert "multiply-adds" in "\n".join(render(report.to_table(), 120))


def test_parameters_are_within_one_channel_of_the_budget() -> None:
    torch.manual_seed(0)
    model, data = lenet_300_100().eval(), [torch.rand(32, 784)]
    for share in (0.8, 0.5, 0.2):
        report = prune_filters(model, f"params:{share}", calibration=data, latency=False).report
        used = report.after.parameters / report.before.parameters
        assert (
            share - 1200 / 266_610 < used <= share
        )  # a hidden unit of the first layer costs at most 784 + 1 + 100


def dead_network() -> tuple[nn.Module, list[Tensor]]:
    """Half of the channels are never active."""
    model, data = made("residual")
    assert isinstance(model, Residual)
    with torch.no_grad():
        model.one.weight[:6] = 0
        assert model.one.bias is not None
        assert model.bn1.running_mean is not None
        model.one.bias[:6] = 0
        model.bn1.running_mean[:6] = 0
        model.bn1.bias[:6] = 0
    return model, data


def test_removing_dead_channels_changes_nothing() -> None:
    model, data = dead_network()
    expected = torch.cat([model(x) for x in data])
    report = prune_filters_(model, "params:0.67", calibration=data, targets=["one"], latency=False)
    assert report["one"].kept == 6
    assert report["one"].eps == pytest.approx(0.0, abs=1e-12)
    assert float((torch.cat([model(x) for x in data]) - expected).abs().max().detach()) < 1e-6


@pytest.mark.parametrize("allocation", ["eps", "uniform", "global"])
@pytest.mark.parametrize("selection", ["top", "random", "hybrid"])
def test_every_choice_runs_and_reports(allocation: str, selection: str) -> None:
    model, data = made("branches")
    pruned = prune_filters(
        model, "params:0.7", calibration=data, allocation=allocation, selection=selection, latency=False
    )
    assert pruned.model(data[0]).shape == (8, 7, 8, 8)
    for family in pruned.report.families:
        assert 1 <= family.kept <= family.units
        assert family.total is not None
        assert 0 < family.total <= family.units
        assert family.vacuous == (family.kept == family.units or (family.eps or 0) >= 1)


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("scores", ["l1", "l2", "random", "taylor"])
def test_baselines_remove_as_much(scores: str) -> None:
    model, data = made("residual")
    labelled = [(x, torch.arange(8) % 5) for x in data]
    report = prune_filters_(
        model, "params:0.6", calibration=labelled, scores=scores, loss=loss, latency=False
    )
    assert report.parameters_removed >= 0.4
    assert report["one"].eps is None


def test_norms_remove_the_smallest_filters() -> None:
    model, data = made("residual")
    assert isinstance(model, Residual)
    norms = model.one.weight.detach().abs().sum((1, 2, 3))
    report = prune_filters_(
        model, "params:0.8", calibration=data, scores="l1", targets=["one"], latency=False
    )
    kept = report.plan.kept["one.weight"][0]
    assert sorted(norms.topk(len(kept)).indices.tolist()) == list(kept)


@pytest.mark.parametrize("reconstruct", ["none", "bias", "least_squares"])
def test_fitting_what_is_left_helps(reconstruct: str) -> None:
    model, data = made("residual")
    expected = torch.cat([model(x) for x in data]).detach()
    pruned = prune_filters(model, "params:0.8", calibration=data, reconstruct=reconstruct, latency=False)
    blind = prune_filters(model, "params:0.8", calibration=data, reconstruct="none", latency=False).model
    error, unfitted = (
        float((torch.cat([net(x) for x in data]) - expected).detach().square().mean())
        for net in (pruned.model, blind)
    )
    assert error <= unfitted + 1e-9
    assert pruned.report.deviation < 1e-5


def test_the_small_network_is_saved_pickled_compiled_and_trained(tmp_path: Path) -> None:
    model, data = made("attention")
    pruned = prune_filters(model, "params:0.6", calibration=data, latency=False)
    expected = pruned.model(data[0])
    torch.save(pruned.model.state_dict(), tmp_path / "small.pt")
    save_plan(pruned.report.plan, tmp_path / "plan.json")
    again = apply_plan_(Attention(), load_plan(tmp_path / "plan.json")).eval()
    again.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(again(data[0]), expected)
    assert torch.equal(pickle.loads(pickle.dumps(pruned.model))(data[0]), expected)
    compiled = torch.compile(pruned.model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(data[0]), expected)
    expected.square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in pruned.model.parameters())


def test_the_small_network_is_exported_to_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, data = made("residual")
    small = prune_filters(model, "params:0.5", calibration=data, latency=False).model
    torch.onnx.export(small, (data[0],), tmp_path / "small.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: data[0].numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), small(data[0]).detach(), rtol=1e-4, atol=1e-5)


def test_padded_shortcuts_shrink_with_the_stages() -> None:
    torch.manual_seed(0)
    model = resnet_cifar(8).eval()
    data = list(torch.randn(8, 3, 16, 16).split(4))
    pruned = prune_filters(model, "params:0.3", calibration=data, samples=4, latency=False)
    assert pruned.report.deviation < 1e-5
    shortcut = pruned.model.get_submodule("layer2.0.shortcut")
    stem, stage = (pruned.model.get_parameter(f"{n}.weight").shape[0] for n in ("conv1", "layer2.0.conv2"))
    assert stem + shortcut.channels_front + shortcut.channels_back == stage < 32  # type: ignore[operator]
    again = apply_plan(resnet_cifar(8), pruned.report.plan).eval()
    again.load_state_dict(pruned.model.state_dict())
    assert torch.equal(again(data[0]), pruned.model(data[0]))


def test_widths_are_multiples_of_a_tile_and_patterns_fit_what_is_left() -> None:
    model, data = made("residual")
    pruned = prune_filters(model, "params:0.7", calibration=data, multiple=4, latency=False)
    assert {family.kept % 4 for family in pruned.report.families} == {0}
    report = bs.prune_(pruned.model, "2:4t", targets=["two"])
    assert report["two"].density == 0.5


def test_elimination_with_a_fit_makes_up_for_what_a_norm_without_one_loses() -> None:
    model, data = made("residual")
    expected = torch.cat([model(x) for x in data]).detach()

    def error(**options: Any) -> float:
        small = prune_filters(model, "params:0.7", calibration=data, latency=False, **options).model
        return float((torch.cat([small(x) for x in data]) - expected).detach().square().mean())

    assert error(scores="obs", reconstruct="least_squares") < 0.1 * error(scores="l1")


def test_heads_are_removed_whole() -> None:
    model, data = made("attention")
    pruned = prune_filters(
        model, "params:0.8", calibration=data, targets=["qkv"], allocation="uniform", latency=False
    )
    assert isinstance(pruned.model, Attention)
    kept = pruned.report["qkv"].kept
    assert kept == pruned.model.heads < 4
    assert tuple(pruned.model.qkv.weight.shape) == (3 * 4 * kept, 16)
    assert pruned.model.qkv.out_features == 12 * kept


def test_channels_that_the_code_divides_by_numbers_stay() -> None:
    model, data = made("shuffled")
    assert isinstance(model, Shuffled)
    report = prune_filters_(model, "params:0.8", calibration=data, latency=False)
    assert tuple(model.one.weight.shape) == (8, 3, 1, 1)
    assert model.two.weight.shape[0] < 8
    assert "divides these channels by fixed numbers" in report.left_out["one"]


def test_a_size_in_the_code_is_an_error_that_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    model, data = HardCoded().eval(), [torch.randn(4, 3, 8, 8)]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="works at its original size only"):
        prune_filters_(model, "params:0.5", calibration=data, samples=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_ignored_layers_stay() -> None:
    model, data = made("branches")
    assert isinstance(model, Branches)
    report = prune_filters_(model, "params:0.8", calibration=data, ignore=["left"], latency=False)
    assert len(model.left.weight) == 6
    assert report.left_out["left.weight"] == "in ignore"


def test_latency_budgets_and_measurements() -> None:
    torch.manual_seed(0)
    model, data = lenet_300_100(features=784).eval(), [torch.rand(64, 784)]
    # Far from 1, since times of equal networks differ by noise.
    report = prune_filters_(model, "latency:0.5", calibration=data)
    assert report.after.seconds is not None
    assert report.speedup is not None
    assert report.parameters_removed > 0


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        ("params", {}, "write RESOURCE:SHARE"),
        ("weights:0.5", {}, "choose one of params, flops, latency"),
        ("params:1.5", {}, "between 0 and 1"),
        ("params:40", {}, r"budget params:40: .*params:0\.6 keeps 60%"),
        (
            "params:0.001",
            {},
            r"the budget cannot be met.*a share of 0\.\d+ remains, above 0\.001;.*fewer layers \(whole: .*: .*\)",
        ),
        ("params:0.5", {"scores": "obs", "selection": "random"}, "in which order units go; use 'top'"),
        ("params:0.5", {"evaluate": lambda: 1.0}, "evaluate= is called with the model alone"),
        ("params:0.5", {"evaluate": 0.5}, "evaluate= is a float: pass a function"),
        ("params:0.5", {"evaluate": lambda model: "good"}, "evaluate= returned a str, not a number"),
        ("params:0.5", {"scores": "l3"}, "choose one of pfp"),
        ("params:0.5", {"scores": "l1", "allocation": "eps"}, "needs sensitivities"),
        ("params:0.5", {"allocation": "error"}, "needs scores='obs'"),
        ("params:0.5", {"scores": "taylor"}, "needs loss="),
        ("params:0.5", {"samples": 1000}, "calibration holds only 24"),
        ("params:0.5", {"samples": 2.5}, "samples=2.5 must be a whole number of at least 2"),
        ("params:0.5", {"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ("params:0.5", {"selection": "random", "multiple": 4}, "widths are no multiples of 4"),
        ("params:0.5", {"selection": "random", "reconstruct": "bias"}, "reweights by itself"),
        ("params:0.5", {"targets": ["nothing"]}, "matches no weight"),
        ("params:0.5", {"ignore": ["stem", "one", "two"]}, "no filter can be removed"),
    ],
)
def test_wrong_wishes_are_refused_in_words(budget: str, options: dict[str, Any], message: str) -> None:
    model, data = made("residual")
    with pytest.raises(ValueError, match=message):
        prune_filters_(model, budget, calibration=data, latency=False, **options)


def test_a_plan_that_does_not_fit_changes_nothing() -> None:
    model, data = made("residual")
    plan = prune_filters(model, "params:0.6", calibration=data, latency=False).report.plan
    small = apply_plan(model, plan)
    with pytest.raises(ValueError, match="the plan was applied already"):
        apply_plan_(small, plan)
    with pytest.raises(ValueError, match="which the model lacks"):
        apply_plan_(Attention(), plan)


def test_a_budget_that_is_no_text_is_refused() -> None:
    model, data = made("residual")
    with pytest.raises(TypeError, match=r"budget 0\.5: write RESOURCE:SHARE as text"):
        prune_filters_(model, 0.5, calibration=data)  # type: ignore[arg-type]


def test_calls_with_wrong_arguments_are_refused_in_words() -> None:
    model, data = made("residual")
    with pytest.raises(TypeError, match=r"unknown option score=: did you mean scores=\?"):
        prune_filters_(model, "params:0.5", calibration=data, score="obs")
    with pytest.raises(TypeError, match=r"model is a OrderedDict: pass the torch\.nn\.Module"):
        prune_filters_(model.state_dict(), "params:0.5", calibration=data)  # type: ignore[arg-type]
    report = prune_filters(model, "params:0.5", calibration=data, latency=False).report
    with pytest.raises(TypeError, match=r"a FilterReport is no filter plan: pass report\.plan"):
        save_plan(report, "never.json")  # type: ignore[arg-type]


def test_numbers_of_evaluate_are_plain_ones() -> None:
    model, data = made("residual")
    report = prune_filters(
        model, "params:0.5", calibration=data, latency=False, evaluate=lambda _: torch.tensor([2])
    ).report
    assert (report.notes["before"], report.notes["after"]) == (2.0, 2.0)
    assert "after: 2" in "\n".join(render(report.to_table()))


def test_a_budget_of_all_removes_nothing_and_takes_no_time() -> None:
    model, data = dead_network()
    for budget in ("params:1", "flops:1", "latency:1"):
        report = prune_filters(model, budget, calibration=data, latency=False).report
        assert report.parameters_removed == 0
    report = prune_filters(model, "params:0.95", calibration=data, latency=False).report
    assert 0.05 <= report.parameters_removed < 0.12  # not all six channels that are dead


def test_nothing_is_proven_without_samples_set_apart() -> None:
    model, data = made("residual")
    report = prune_filters(model, "params:0.7", calibration=data, samples=24, latency=False).report
    assert report.notes["samples_set_apart"] == 0
    assert all(family.kappa == float("inf") and family.vacuous for family in report.families)
    report = prune_filters(model, "params:0.7", calibration=data, samples=12, latency=False).report
    assert all(1 <= (family.kappa or 0) < 100 for family in report.families)


def test_an_evaluation_that_fails_leaves_the_model_alone() -> None:
    model, data = made("residual")
    before, calls = shapes(model), list[int]()

    def evaluate(network: nn.Module) -> float:
        calls.append(sum(p.numel() for p in network.parameters()))
        if len(calls) == 2:
            raise RuntimeError("no more images")
        return 0.0

    with pytest.raises(RuntimeError, match="no more images"):
        prune_filters_(model, "params:0.5", calibration=data, evaluate=evaluate, latency=False)
    assert calls[1] <= 0.5 * calls[0]
    assert shapes(model) == before


def test_an_empty_first_batch_is_passed_over() -> None:
    model, data = made("residual")
    first = prune_filters(model, "params:0.7", calibration=[data[0][:0], *data], latency=False)
    again = prune_filters(model, "params:0.7", calibration=data, latency=False)
    assert first.report.plan == again.report.plan


@pytest.mark.parametrize(
    ("wrong", "calibration", "message"),
    [
        (loss, "bare", "needs batches with labels"),
        (lambda model, batch: model(batch[0]), "labelled", r"must return one number .* got \(8, 5\)"),
        (lambda model, batch: model(batch[0]).sum().item(), "labelled", "got float"),
        (lambda model, batch: model(batch[0]).sum().detach(), "labelled", "with a gradient"),
        (loss, "run", "pass an iterable of them"),
    ],
)
def test_wrong_losses_are_refused_in_words(wrong: Any, calibration: str, message: str) -> None:
    model, data = made("residual")
    forms: dict[str, Any] = {
        "bare": data,
        "labelled": [(x, torch.arange(8) % 5) for x in data],
        "run": lambda model: [model(x) for x in data],
    }
    with pytest.raises(ValueError, match=message):
        prune_filters_(
            model, "params:0.6", calibration=forms[calibration], scores="taylor", loss=wrong, latency=False
        )


def test_frozen_weights_have_taylor_scores_and_stay_frozen() -> None:
    model, data = made("residual")
    labelled = [(x, torch.arange(8) % 5) for x in data]
    expected = prune_filters(
        model, "params:0.6", calibration=labelled, scores="taylor", loss=loss, latency=False
    ).report.plan
    model.requires_grad_(False)
    pruned = prune_filters(
        model, "params:0.6", calibration=labelled, scores="taylor", loss=loss, latency=False
    )
    assert pruned.report.plan == expected
    assert not any(p.requires_grad for p in [*pruned.model.parameters(), *model.parameters()])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 8}, "samples"),
        ({"delta": 0.1}, "delta"),
        ({"kernel_reduction": "max", "reconstruct": "rescale"}, "kernel_reduction, reconstruct='rescale'"),
    ],
)
@pytest.mark.parametrize("scores", ["obs", "l1", "random"])
def test_what_only_sensitivities_have_is_refused_for_other_scores(
    options: dict[str, Any], named: str, scores: str
) -> None:
    model, data = made("residual")
    with pytest.raises(ValueError, match=f"{named}: only scores='pfp' has them; got scores='{scores}'"):
        prune_filters_(model, "params:0.5", calibration=data, scores=scores, **options)


def test_every_score_has_the_reconstruction_that_suits_it() -> None:
    expected = {"pfp": "rescale", "obs": "least_squares", "l1": "none", "random": "none"}
    model, data = made("residual")
    for scores, reconstruct in expected.items():
        plain, named = (
            prune_filters(model, "params:0.6", calibration=data, scores=scores, latency=False, **options)
            for options in ({}, {"reconstruct": reconstruct})
        )
        assert plain.report.settings["reconstruct"] == reconstruct
        assert torch.equal(plain.model(data[0]), named.model(data[0]))


@pytest.mark.parametrize("scores", ["pfp", "obs", "l1"])
def test_a_budget_in_time_is_met_closely(monkeypatch: pytest.MonkeyPatch, scores: str) -> None:
    def parameters(model: nn.Module) -> float:
        return float(sum(p.numel() for p in model.parameters()))

    def measured(models: dict[str, nn.Module], call: Call, **options: Any) -> dict[str, float]:
        return {name: parameters(model) for name, model in models.items()}

    monkeypatch.setattr("bisparse.filters.job.measure_latency", measured)
    torch.manual_seed(0)
    layers = [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)]
    model = nn.Sequential(*layers).eval()
    for keep in (0.8, 0.5, 0.2):
        found = prune_filters(model, f"latency:{keep}", calibration=[torch.rand(64, 32)], scores=scores)
        assert keep - 0.04 < parameters(found.model) / parameters(model) <= keep


def test_a_plan_fits_only_the_sizes_that_it_was_made_for() -> None:
    def build(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)).eval()

    plan = prune_filters(build(16), "params:0.5", calibration=[torch.randn(8, 6)], latency=False).report.plan
    for width in (12, 24):
        other = build(width)
        with pytest.raises(
            ValueError, match=rf"0\.weight is \({width}, 6\).*build the model that was pruned"
        ):
            apply_plan_(other, plan)
        assert other[0].out_features == width


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    texts = ("{", "[]", '{"kept": {"w": {"first": [0]}}, "attributes": {}, "shapes": {"w": [2]}}')
    for text in (*texts, '{"kept": {"w": {"0": [0]}}, "attributes": {}, "shapes": {}}'):
        (tmp_path / "plan.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"plan\.json is no filter plan"):
            load_plan(tmp_path / "plan.json")
