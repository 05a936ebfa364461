from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from bisparse.compress import Alps, Distill, LeastSquares, prune, prune_
from bisparse.compress.gather import Gatherer
from bisparse.compress.pieces import same_routes
from bisparse.compress.streams import Visit
from bisparse.pattern import NM
from bisparse.report import render


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))


def data(count=3, size=100, width=16):
    generator = torch.Generator().manual_seed(5)
    return list(
        (
            torch.randn(count * size, width, generator=generator)
            @ torch.randn(width, width, generator=generator)
        ).split(size)
    )


def test_without_data_it_is_magnitude_alone():
    model = mlp()
    pruned = prune(model, "2:4")
    expected = model[0].weight.detach().reshape(16, 4, 4).abs()
    kept = pruned.model[0].weight.detach().reshape(16, 4, 4)
    assert torch.equal(kept.abs().sum(2), expected.topk(2, 2).values.sum(2)) or torch.allclose(
        kept.abs().sum(2), expected.topk(2, 2).values.sum(2)
    )
    assert torch.equal(pruned.model[4].weight, model[4].weight)
    assert "classifier" in pruned.report.left_out["4.weight"]
    assert pruned.report["0"].gap == 0.0
    assert torch.equal(pruned.model[0].bias, model[0].bias)


def test_prune_leaves_its_input_alone_and_the_state_of_the_model_is_restored():
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    pruned = prune(model, "2:4t", calibration=data(), reconstruct="alps")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert pruned.model.training
    assert all(p.requires_grad for p in pruned.model.parameters())
    assert all(p.grad is None for p in pruned.model.parameters())
    assert not pruned.model[0]._forward_pre_hooks


def test_same_seed_same_bits():
    runs = [
        prune(mlp(), "2:4t", calibration=data(), reconstruct=(Alps(), Distill(epochs=2)), seed=3)
        for _ in range(2)
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True)
    )


def test_sequential_inputs_come_from_the_pruned_network_and_targets_from_the_dense_one():
    """The second layer must be the least-squares fit of dense outputs to pruned inputs."""
    model = mlp()
    pruned = prune(
        model, "2:4", calibration=data(), reconstruct=LeastSquares(damping=0.0), scores="magnitude"
    ).model
    x = torch.cat(data())
    with torch.no_grad():
        inputs = pruned[:2](x).double()
        goal = model[:3](x).double()
    for row in range(12):
        kept = pruned[2].weight[row] != 0
        design = torch.cat([inputs[:, kept], torch.ones(len(x), 1)], 1)
        fit = torch.linalg.lstsq(design, goal[:, row : row + 1], driver="gelsd").solution.squeeze(1)
        prediction = design @ torch.cat([pruned[2].weight[row][kept], pruned[2].bias[row : row + 1]]).double()
        torch.testing.assert_close(prediction, design @ fit, atol=1e-4, rtol=1e-4)


def test_parallel_uses_dense_inputs_and_is_less_accurate():
    model, x = mlp(), torch.cat(data())
    outputs = {}
    for sequential in (True, False):
        options = {"calibration": data(), "reconstruct": "least_squares", "scores": "magnitude"}
        outputs[sequential] = prune(model, "1:4", sequential=sequential, **options).model(x).detach()
    error = {key: float((value - model(x).detach()).norm()) for key, value in outputs.items()}
    assert error[True] < error[False]


class Counting(nn.Module):
    """Counts the samples that pass."""

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.samples = 0

    def forward(self, x):
        self.samples += len(x)
        return self.body(x)


@pytest.mark.parametrize("sequential", [True, False])
def test_at_most_two_passes_and_one_batch(sequential):
    model = Counting()
    batches = data(count=4)
    prune_(model, "2:4", calibration=batches, reconstruct="least_squares", sequential=sequential)
    assert model.samples == 400 * (2 if sequential else 1) + 100


def test_a_callable_that_runs_the_model_costs_one_pass_more():
    model = Counting()
    prune_(model, "2:4", calibration=lambda m: [m(x) for x in data(count=4)], reconstruct="least_squares")
    assert model.samples == 400 * 3 + 100


@pytest.mark.parametrize("sequential", [True, False])
def test_statistics_of_one_layer_at_a_time_are_held(sequential, monkeypatch):
    held = []
    add = Gatherer.add

    def counting(self, *arguments):
        add(self, *arguments)
        held.append(len(self.waiting()))

    monkeypatch.setattr(Gatherer, "add", counting)
    prune_(mlp(), "2:4", calibration=data(), reconstruct="least_squares", ignore=[], sequential=sequential)
    assert held == [1] * 9  # three layers, three batches


def test_patterns_by_mapping():
    report = prune_(mlp(), {"0": "1:4", "re:2$": NM(2, 4)}, ignore=[])
    assert {layer.name: layer.pattern for layer in report.layers} == {"0.weight": "1:4", "2.weight": "2:4"}
    assert "mapping" in report.left_out["4.weight"]


def test_scores_by_tensor_and_by_callable():
    model = mlp()
    scores = torch.zeros(16, 16)
    scores[:, 1::2] = 1.0
    for given in ({"0.weight": scores}, lambda weight, statistics: scores):
        pruned = prune(model, "2:4", targets="0", scores=given).model
        assert torch.equal(pruned[0].weight != 0, scores.bool())


class Shared(nn.Module):
    """One layer used twice, and a tied pair."""

    def __init__(self):
        super().__init__()
        self.twice, self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(self.twice(self.twice(x).relu())).relu())


def test_shared_and_tied_weights_are_solved_once_from_all_their_uses():
    torch.manual_seed(0)
    model = Shared()
    report = prune_(model, "2:4", ignore=[], calibration=data(width=8), reconstruct="least_squares")
    assert [layer.name for layer in report.layers] == ["twice.weight", "a.weight"]
    assert model.b.weight is model.a.weight
    assert int((model.a.weight != 0).sum()) == 32
    assert all(layer.error_after < layer.error_before for layer in report.layers)


class Experts(nn.Module):
    """Two Linear experts; the sign of the first feature routes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x):
        x = self.first(x)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            chosen = (x[:, 0] > 0) == bool(number)
            if chosen.any():
                out[chosen] = expert(x[chosen])
        return out


def test_routed_experts():
    torch.manual_seed(0)
    report = prune_(Experts(), "2:4", ignore=[], calibration=data(width=8), reconstruct="least_squares")
    assert len(report.layers) == 3
    assert all(layer.error_after < layer.error_before for layer in report.layers)


@pytest.mark.parametrize("reconstruct", ["alps", "least_squares+distill"])
def test_padding_tokens_change_nothing(reconstruct):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Linear(8, 8)

        def forward(self, inputs_embeds, attention_mask):
            return self.body(inputs_embeds)

    mask = torch.ones(5, 12, dtype=torch.long)
    mask[:, 9:] = 0
    weights = []
    for junk in (0.0, 1e3):
        x = data(count=1, size=60, width=8)[0].reshape(5, 12, 8).clone()
        x[:, 9:] = junk
        model = Net()
        batch = {"inputs_embeds": x, "attention_mask": mask}
        prune_(model, "2:4", ignore=[], calibration=[batch], reconstruct=reconstruct)
        weights.append(model.body.weight.detach())
    assert torch.equal(*weights)


def test_batches_may_differ_in_size_and_length():
    x = torch.cat(data(width=8))
    shapes = [(1, 50, 8), (4, 25, 8), (150, 1, 8)]
    mixed = [part.reshape(shape) for part, shape in zip(x.split([50, 100, 150]), shapes, strict=True)]
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    apart, together = (
        prune(model, "2:4", ignore=[], calibration=batches, reconstruct="least_squares", scores="obs").model
        for batches in (mixed, [x])
    )
    torch.testing.assert_close(apart[2].weight, together[2].weight, rtol=1e-3, atol=1e-4)


def test_progress_is_shown_on_the_error_stream_only_when_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a captured stream counts as a terminal then
    prune_(mlp(), "2:4", calibration=data(), reconstruct="least_squares")
    assert capsys.readouterr().err == ""
    prune_(mlp(), "2:4", calibration=data(), reconstruct="least_squares", progress=True)
    captured = capsys.readouterr()
    assert "2.weight" in captured.err
    assert captured.out == ""


def test_layers_smaller_than_the_block():
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))
    report = prune_(model, "4:8", ignore=[])
    assert report["0"].density == pytest.approx(4 / 6)
    assert "unchanged" in report["1"].note
    assert report["1"].density == 1.0


def test_report_is_plain_data():
    report = prune_(
        mlp(), "2:4t", calibration=data(), evaluate=lambda model: float(model[0].weight.detach().abs().sum())
    )
    content = json.loads(json.dumps(report.to_dict()))
    assert content["density"] == pytest.approx(0.5)
    assert content["notes"]["evaluate_after"] != content["notes"]["evaluate_before"]
    assert content["layers"][0]["pattern"] == "2:4t"
    assert report.settings["batches"] == 3
    with pytest.raises(KeyError):
        report["nothing"]


def test_interrupted_runs_go_on_where_they_stopped(tmp_path, monkeypatch):
    reference = prune(mlp(), "2:4t", calibration=data(), reconstruct="alps")
    calls = []
    original = Alps.__call__

    def failing(self, problem):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(problem.name)
        return original(self, problem)

    model = mlp()
    before = copy.deepcopy(model.state_dict())
    options = {"calibration": data(), "reconstruct": "alps", "checkpoint_dir": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(Alps, "__call__", failing)
        with pytest.raises(KeyboardInterrupt):
            prune_(model, "2:4t", **options)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
        calls.clear()
        report = prune_(model, "2:4t", **options)
    assert calls == ["2.weight"]
    assert torch.equal(model[2].weight, reference.model[2].weight)
    assert [layer.name for layer in report.layers] == ["0.weight", "2.weight"]
    other = prune(mlp(seed=1), "2:4t", **options).model
    assert torch.equal(
        other[0].weight, prune(mlp(seed=1), "2:4t", calibration=data(), reconstruct="alps").model[0].weight
    )


BAD = [
    ({"pattern": "2:4", "targets": "9"}, "targets='9'"),
    ({"pattern": "2:4", "targets": nn.Conv2d}, "no weight to prune"),
    ({"pattern": "2:4", "reconstruct": "magic"}, "unknown reconstruction 'magic'"),
    ({"pattern": "2:4", "scores": "magic"}, "unknown scores 'magic'"),
    ({"pattern": "2:4", "reconstruct": "alps"}, "calibration="),
    ({"pattern": "2:4", "scores": "wanda"}, "calibration="),
    ({"pattern": "2:4", "reconstruct": "distill"}, "calibration="),
    (
        {"pattern": "2:4", "reconstruct": "alps", "scores": "obs", "calibration": "data"},
        "chooses its own mask",
    ),
    ({"pattern": "2:4", "reconstruct": "alps+bias", "calibration": "data"}, "one layer-wise method"),
    ({"pattern": "2:4", "scores": {"0.weight": torch.ones(2)}}, "shape"),
    ({"pattern": "2:4", "scores": {"x": torch.ones(2)}}, "no entry for"),
    ({"pattern": "2:4", "scores": lambda w, s: -w.abs()}, "non-negative"),
    ({"pattern": "2:4", "calibration": [torch.full((3, 16), float("nan"))]}, "0.weight.*NaN"),
    ({"pattern": "2:4", "calibration": [torch.randn(3, 16), torch.randn(3, 7)]}, "shapes"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused_and_the_model_is_untouched(options, message):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    if options.get("calibration") == "data":
        options = options | {"calibration": data()}
    with pytest.raises((ValueError, RuntimeError), match=message):
        prune_(model, **options)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.training


def test_layers_that_calibration_never_reaches_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    model = Net()
    with pytest.raises(ValueError, match=r"reaches unused.*ignore="):
        prune_(model, "2:4", ignore=[], calibration=[torch.randn(5, 4)])
    assert int((model.used.weight == 0).sum()) == 0


def test_nan_weights_and_unknown_orientation_are_refused():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"0\.weight contains NaN"):
        prune_(model, "2:4")

    class MyExperts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(2, 8, 8))

    with pytest.raises(ValueError, match="transposable 2:4t"):
        prune_(MyExperts(), "2:4")
    assert prune_(MyExperts(), "2:4t").density == 0.5


def test_only_protected_layers_say_why():
    with pytest.raises(ValueError, match=r"last classifier.*ignore=\[\]"):
        prune_(nn.Sequential(nn.Linear(4, 4)), "2:4")


def test_encoder_layers_of_torch_are_seen_despite_their_fused_path():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), 2
    ).eval()
    x = torch.randn(6, 10, 16)
    report = prune_(model, "2:4t", calibration=[x], reconstruct="least_squares")
    assert len(report.layers) == 8
    assert all(layer.error_after < layer.error_before for layer in report.layers)


def test_report_as_table_and_picture(tmp_path):
    report = prune_(mlp(), "2:4t", calibration=data(), reconstruct="least_squares")
    lines = render(report.to_table())
    assert any("0.weight" in line and "2:4t" in line for line in lines)
    assert any("left out: 4.weight" in line for line in lines)
    assert report.plot(tmp_path / "errors.png").stat().st_size > 1000
    blind = prune_(mlp(), "2:4")
    assert "error" not in " ".join(render(blind.to_table())[:2])
    with pytest.raises(ValueError, match="calibration"):
        blind.plot(tmp_path / "none.png")


def test_stored_layers_count_only_for_the_same_model_patterns_scores_and_data(tmp_path, caplog):
    def run(**changes):
        options = {"pattern": "2:4", "scores": "obs", "calibration": data(), "reconstruct": "least_squares"}
        options = options | changes
        caplog.clear()
        stored = prune(mlp(), checkpoint_dir=tmp_path, **options).model
        solved_anew = "solved anew" in caplog.text
        fresh = prune(mlp(), **options).model
        assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), fresh.parameters(), strict=True))
        return solved_anew

    assert not run()
    assert not run()
    assert run(calibration=data(count=2))
    assert run(pattern={"0": "1:4", "2": "2:4"})
    tensors = {"0.weight": torch.rand(16, 16), "2.weight": torch.rand(12, 16)}
    assert run(scores=tensors)
    assert run(scores={name: 1 - value for name, value in tensors.items()})
    assert not run(scores={name: 1 - value for name, value in tensors.items()})


def test_convolutions_of_many_images_are_gathered_in_pieces_without_a_difference():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=2), nn.ReLU()
    )
    images = torch.randn(150, 8, 9, 9)
    whole, parts = (
        prune(model, "2:4", ignore=[], calibration=calibration, reconstruct="least_squares", scores="obs")
        for calibration in ([images], images.split(7))
    )
    for a, b in zip(whole.report.layers, parts.report.layers, strict=True):
        assert a.error_after == pytest.approx(b.error_after, rel=1e-4)
    torch.testing.assert_close(whole.model[2].weight, parts.model[2].weight, rtol=1e-3, atol=1e-4)


def test_targets_of_experts_count_only_where_both_networks_route_alike():
    module, x = nn.Linear(2, 2), torch.randn(4, 2)
    route, other = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 0, 1])
    visit = Visit(module, (x, route), {})
    assert same_routes(visit, Visit(module, (2 * x, route.clone()), {}))
    assert not same_routes(visit, Visit(module, (x, other), {}))
    assert not same_routes(visit, Visit(module, (x,), {}))
    assert not same_routes(visit, None)


class RoutedExperts(nn.Module):
    """A router in front of stacked experts, which are told the routes, as in transformers."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(2, 8, 8))

        def forward(self, x, route):
            out = torch.empty_like(x)
            for expert in range(2):
                out[route == expert] = nn.functional.linear(x[route == expert], self.up[expert])
            return out

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.experts = nn.Linear(8, 8), self.Experts()

    def forward(self, x):
        x = self.first(x)
        # Sorting by the first feature sends half of the rows to each expert: equal counts, other rows.
        order = x[:, 0].argsort()
        route = torch.zeros(len(x), dtype=torch.long)
        route[order[len(x) // 2 :]] = 1
        return self.experts(x, route)


def test_experts_are_fitted_to_their_own_rows_when_routes_change():
    model, calibration = RoutedExperts(), data(width=8)
    report = prune_(model, "1:4t", ignore=[], calibration=calibration, reconstruct="least_squares")
    experts = report["experts"]
    assert experts.error_after < experts.error_before
    assert experts.error_after < 0.75  # rows of other tokens as targets: 0.9 and more
