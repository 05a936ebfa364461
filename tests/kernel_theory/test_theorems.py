"""The theorems of the adaptive kernel, with the tolerances of their derivation."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.kernel_theory.networks import SquaredReLU, problem, spread, three_layer, two_layer
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.kernel_theory import (
    alignment,
    feature_kernel,
    fit_stationary_,
    gradient_kernel,
    homogeneity,
    kernel_report,
)
from bisparse.kernel_theory.directional import directional
from bisparse.kernel_theory.jacobian import plan_jacobian
from bisparse.kernel_theory.network import prepare
from bisparse.masks.solve import solve_mask
from bisparse.report import render, to_json

LAMBDA = 1e-2


@pytest.fixture(scope="module")
def stationary() -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """A two-layer network of degree 3 at a stationary point of the penalised loss."""
    X, y, Z = problem(25, 4)
    model = two_layer(4, 20, squared=True)
    assert fit_stationary_(model, X, y, penalty=LAMBDA, steps=2000) < 1e-6
    return model, X, y, Z


def test_ridge_identities_hold_on_held_out_examples(
    stationary: tuple[nn.Sequential, Tensor, Tensor, Tensor],
) -> None:
    model, X, y, Z = stationary
    report = kernel_report(model, X, y, X_test=Z, penalty=LAMBDA)
    assert report.degree == 3
    for name in ("ridge, last layer", "ridge, all layers", "representer"):
        statement = report[name]
        assert statement.applies
        tolerance = 1e-5 if name == "representer" else 1e-6  # the representer divides |g| by the penalty
        assert max(statement.error, statement.error_held_out) < tolerance  # type: ignore[type-var]
        assert statement.certified < 1e-10  # type: ignore[operator]
    assert report["ridgeless limit"].error > 1e-2  # type: ignore[operator]
    assert (report.gap, report.K.rank) == (report.K.rank - report.H.rank, 25)  # type: ignore[union-attr]
    assert report.H.rank < 20  # type: ignore[union-attr]  # the penalty itself pruned neurons
    assert not report["projection"].applies
    assert "penalty" in report["projection"].reason


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_certificates_are_exact_far_from_stationarity(depth: int, outputs: int, masked: bool) -> None:
    X, _, Z = problem(15, 4)
    y = torch.randn(15, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    model = two_layer(4, 16, outputs=outputs) if depth == 2 else three_layer(outputs=outputs)
    masks = {"0": solve_mask(model[0].weight.detach().abs(), "2:4t").mask} if masked else None
    report = kernel_report(model, X, y, X_test=Z, penalty=0.1, masks=masks)
    assert report.degree == depth
    assert report.gradient_norm > 0.1
    assert report.kept == report.parameters - (16 * 4 // 2 if depth == 2 else 12 * 4 // 2) * masked
    for name in ("ridge, last layer", "ridge, all layers", "representer"):
        assert report[name].error > 1e-2  # type: ignore[operator]
        assert report[name].certified < 1e-10, name  # type: ignore[operator]
    free = kernel_report(model, X, y, masks=masks)
    for name in ("projection", "residual"):
        assert free[name].applies
        assert free[name].certified < 1e-10, name  # type: ignore[operator]


def test_the_ridgeless_gap_closes_with_the_penalty() -> None:
    X, y, Z = problem(12, 3)
    model, gaps = two_layer(3, 12, squared=True), []
    for penalty in (1e-2, 1e-3, 1e-4):
        fit_stationary_(model, X, y, penalty=penalty, steps=300)
        report = kernel_report(model, X, y, X_test=Z, penalty=penalty)
        gaps.append(report["ridgeless limit"].error_held_out)
        assert report["ridge, all layers"].certified < 1e-8  # type: ignore[operator]
    assert gaps[0] > gaps[1] > gaps[2], gaps
    assert gaps[2] < 0.05 < 1.0 < gaps[0]


def test_a_strong_penalty_prunes_neurons_by_itself() -> None:
    X, y, Z = problem(25, 4)
    model = two_layer(4, 20, squared=True)
    fit_stationary_(model, X, y, penalty=0.1, steps=500)
    report = kernel_report(model, X, y, X_test=Z, penalty=0.1)
    left = int((model[0].weight.norm(dim=1) > 1e-3).sum())
    assert report.H.rank == left <= 3  # type: ignore[union-attr]
    assert left < report.K.rank < 25
    assert report["ridge, all layers"].error_held_out < 1e-6  # type: ignore[operator]


def test_masked_networks_are_kernel_machines_of_their_masked_kernel() -> None:
    X, y, Z = problem(25, 8)
    model = two_layer(8, 16, squared=True)
    mask = solve_mask(torch.rand(16, 8, generator=torch.Generator().manual_seed(0)), "2:4t").mask
    fit_stationary_(model, X, y, penalty=LAMBDA, masks={"0.weight": mask}, steps=3000)
    assert not bool(model[0].weight[~mask].any())
    seen = kernel_report(model, X, y, X_test=Z, penalty=LAMBDA, masks={"0.weight": mask})
    blind = kernel_report(model, X, y, X_test=Z, penalty=LAMBDA)
    assert seen["ridge, all layers"].error_held_out < 1e-6  # type: ignore[operator]
    assert blind["ridge, all layers"].error_held_out > 1e-2  # type: ignore[operator]
    assert (seen.K.name, blind.K.name) == ("K_M", "K")
    assert seen.K.rank <= seen.kept


def test_solving_the_last_layer_projects_onto_its_features() -> None:
    X, y, _ = problem(40, 4)
    model = two_layer(4, 10)
    features = torch.relu(X @ model[0].weight.detach().T)
    model[2].weight.data = torch.linalg.lstsq(features, y[:, None]).solution.T
    report = kernel_report(model, X, y)
    assert report["projection"].error < 1e-12  # type: ignore[operator]
    r = y - model(X)[:, 0].detach()
    assert float((features.T @ r).norm()) < 1e-10 * float(features.norm() * r.norm())
    assert report.H.residual_outside > 1 - 1e-12  # type: ignore[union-attr]


def test_the_null_space_of_the_gradient_kernel_lies_in_that_of_the_features() -> None:
    X, y, _ = problem(60, 3)
    model = two_layer(3, 6)
    K, H = gradient_kernel(model, X), feature_kernel(model, X)
    values, vectors = torch.linalg.eigh(K)
    null = vectors[:, values < 1e-10 * values[-1]]
    assert null.shape[1] >= 60 - 24
    assert float((H @ null).norm()) < 1e-12 * float(H.norm())
    report = kernel_report(model, X, y)
    assert report.H.y_outside >= report.K.y_outside > 0  # type: ignore[union-attr]
    assert report.H.y_inside + report.H.y_outside == pytest.approx(1.0)  # type: ignore[union-attr]


def test_the_residual_leaves_the_range_at_stationarity() -> None:
    X, y, _ = problem(40, 3)
    model = two_layer(3, 4, squared=True)
    before = kernel_report(model, X, y)
    fit_stationary_(model, X, y, steps=400)
    after = kernel_report(model, X, y)
    assert after["residual"].error < 1e-2 * before["residual"].error  # type: ignore[operator]
    assert after.K.residual_outside > 0.99 > before.K.residual_outside
    assert not after.interpolates


def test_balance_drifts_with_the_step_size() -> None:
    X, y, _ = problem(20, 4)
    drifts = []
    for rate in (0.02, 0.01):
        model = two_layer(4, 8)
        model[2].weight.data = model[0].weight.data.norm(dim=1)[None] * model[2].weight.data.sign()
        for _ in range(round(4 / rate)):
            loss = (model(X)[:, 0] - y).square().mean() / 2
            for p, g in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                p.data -= rate * g
        balance = model[2].weight.detach()[0].square() - model[0].weight.detach().square().sum(1)
        drifts.append(float(balance.abs().max()))
    assert 1.6 < drifts[0] / drifts[1] < 2.5


def test_alignment_grows_on_the_teachers_task() -> None:
    X, _, _ = problem(40, 3)
    y = torch.relu(X @ torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
    model = two_layer(3, 30)
    for parameter in model.parameters():
        parameter.data *= 0.5  # a small start: features must move
    start = alignment(feature_kernel(model, X), y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        ((model(X)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
    assert alignment(feature_kernel(model, X), y) > start + 0.05


def with_bias() -> nn.Module:
    return spread(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), 0)


def with_norm() -> nn.Module:
    layers = [nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)]
    model = spread(nn.Sequential(*layers, nn.Linear(8, 1, bias=False)), 0)
    model(problem(25, 4)[0])  # moves the running statistics
    return model


def with_tanh() -> nn.Module:
    return spread(nn.Sequential(nn.Linear(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False)), 0)


@pytest.mark.parametrize(
    ("build", "cause"), [(with_bias, "biases"), (with_norm, "norm layers"), (with_tanh, "Tanh")]
)
def test_what_breaks_homogeneity_is_named(build: type[nn.Module], cause: str) -> None:
    X, y, Z = problem(25, 4)
    report = kernel_report(build(), X, y, X_test=Z, penalty=LAMBDA)
    assert report.degree is None
    for name in ("ridge, all layers", "representer", "ridgeless limit"):
        assert not report[name].applies
        assert cause in report[name].reason
    assert report["ridge, last layer"].applies
    assert report["ridge, last layer"].certified < 1e-10  # type: ignore[operator]
    assert cause != "norm layers" or ("batch norm" in report.notes[0] and "dropout" in report.notes[1])


@pytest.mark.parametrize(("model", "degree"), [
    (two_layer(4, 8), 2),
    (two_layer(4, 8, squared=True), 3),
    (three_layer(), 3),
    (spread(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1, bias=False)), 0), 2),
    (nn.Sequential(nn.Linear(4, 8, bias=False), SquaredReLU(), SquaredReLU(), nn.Linear(8, 1, bias=False)), 5),
])  # fmt: skip
def test_degrees(model: nn.Module, degree: int) -> None:
    assert homogeneity(model, problem(10, 4)[0]).degree == degree


def test_degree_counts_only_what_is_trained() -> None:
    assert homogeneity(three_layer(), problem(10, 4)[0], params="4").degree == 1


def test_zero_outputs_say_nothing_about_scaling() -> None:
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    nn.init.zeros_(model[0].weight)
    assert "all outputs are zero" in homogeneity(model, problem(10, 4)[0]).reason


def test_cross_entropy_keeps_the_residual_and_the_representer() -> None:
    X, _, Z = problem(20, 4)
    classes = torch.arange(20) % 3
    report = kernel_report(three_layer(outputs=3), X, classes, X_test=Z, penalty=0.1)
    assert report.loss == "cross_entropy"
    assert [s.name for s in report.statements if s.applies] == ["representer"]
    assert report["representer"].certified < 1e-10  # type: ignore[operator]
    free = kernel_report(three_layer(outputs=3), X, classes)
    assert [s.name for s in free.statements if s.applies] == ["residual"]
    assert free["residual"].certified < 1e-10  # type: ignore[operator]
    squared = kernel_report(three_layer(outputs=3), X, classes, loss="squared")
    assert squared["projection"].applies


def test_classifiers_are_judged_by_their_probabilities() -> None:
    X, _, Z = problem(20, 4)
    classes, model = torch.arange(20) % 3, three_layer(outputs=3)
    truth = F.one_hot(classes, 3)
    for kind, given in (("cross_entropy", model(Z).softmax(1)), ("squared", model(Z))):
        report = kernel_report(model, X, classes, X_test=Z, y_test=classes, loss=kind)  # type: ignore[arg-type]
        assert report.held_out["network"] == pytest.approx(float((given.detach() - truth).square().mean()))


def test_a_last_layer_with_bias_adds_a_constant_feature() -> None:
    X, y, _ = problem(30, 4)
    report = kernel_report(with_bias(), X, y)
    assert report.H.rank == 9  # type: ignore[union-attr]
    frozen = with_bias()
    frozen[2].bias.requires_grad_(False)  # type: ignore[index]
    assert "not trained" in kernel_report(frozen, X, y)["projection"].reason


def test_networks_without_a_last_linear_layer() -> None:
    X, y, _ = problem(10, 4)
    model = nn.Sequential(nn.Linear(4, 1), nn.Tanh()).double()
    assert "not those of a last Linear layer" in kernel_report(model, X, y)["projection"].reason
    conv = nn.Sequential(nn.Conv1d(2, 1, 2), nn.Flatten()).double()
    report = kernel_report(conv, X.reshape(10, 2, 2), y)
    assert report.H is None
    assert report.gap is None
    assert "no Linear layer" in report["projection"].reason
    assert report["residual"].certified < 1e-10  # type: ignore[operator]


class Mixed(nn.Module):
    """Fused attention, which has no forward derivative, between Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.first(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.last(mixed.mean(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("masked", [False, True])
def test_networks_without_forward_derivatives_are_certified_too(masked: bool) -> None:
    torch.manual_seed(0)
    model, X = Mixed(), torch.randn(9, 5, 4)
    masks = {"first": torch.rand(12, 4) < 0.5} if masked else None
    report = kernel_report(model, X, torch.randn(9, 2), masks=masks)
    assert report["residual"].certified < 1e-10  # type: ignore[operator]
    assert report["projection"].certified < 1e-10  # type: ignore[operator]
    assert report["residual"].error > 1e-3  # type: ignore[operator]


def test_a_direction_gives_the_same_forwards_and_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (X, _, _) = three_layer(outputs=3), problem(7, 4)
    masks = {"2.weight": solve_mask(model[2].weight.detach().abs(), "2:4").mask}
    network = prepare(model, X, masks=masks)
    direction = {name: torch.randn_like(value) for name, value in network.values().items()}
    forwards = directional(network, X, direction)

    def refuse(*_: object) -> None:
        raise NotImplementedError("no forward derivative")

    monkeypatch.setattr("bisparse.kernel_theory.directional.jvp", refuse)
    assert plan_jacobian(network, X, "full")[0].outer  # both forms of a part are tried
    torch.testing.assert_close(directional(network, X, direction), forwards, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(directional(network, X, direction, 8000), forwards, rtol=1e-12, atol=1e-12)


def test_traces_describe_but_prove_less() -> None:
    X, _, _ = problem(20, 4)
    report = kernel_report(three_layer(outputs=3), X, torch.randn(20, 3), outputs="trace", penalty=0.1)
    assert report.K.size == 20
    assert "all pairs" in report["ridge, all layers"].reason
    assert any("summed" in note for note in report.notes)


def test_the_report_as_text_json_and_picture(
    stationary: tuple[nn.Sequential, Tensor, Tensor, Tensor], tmp_path: object
) -> None:
    model, X, y, Z = stationary
    report = kernel_report(model, X, y, X_test=Z, y_test=torch.sin(Z[:, 0]), penalty=LAMBDA)
    assert '"gap"' in to_json(report)
    assert str(report) == "\n".join(render(report.to_table()))
    assert "homogeneous of degree 3" in str(report)
    assert set(report.held_out) == {"network", "ridge K", "ridge H", "ridgeless K", "ridgeless H"}
    assert report.held_out["ridge K"] == pytest.approx(report.held_out["network"], rel=1e-5)
    assert report.plot(f"{tmp_path}/report.png").stat().st_size > 10_000
    with pytest.raises(KeyError, match="projection"):
        report["theorem 7"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": -1.0}, "penalty"),
        ({"loss": "hinge"}, "loss"),
        ({"loss": "cross_entropy"}, "class number"),
        ({"outputs": "half"}, "'trace'"),
        ({"y": torch.zeros(9)}, "9 targets for 10"),
        ({"y": torch.zeros(10, 2)}, "do not fit outputs"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    X, y, _ = problem(10, 4)
    given = {"y": y} | options
    with pytest.raises(ValueError, match=message):
        kernel_report(two_layer(4, 6), X, **given)


def test_too_many_rows_and_wrong_classes_are_refused() -> None:
    model = copy.deepcopy(two_layer(4, 6, outputs=3))
    X = torch.randn(1500, 4)
    with pytest.raises(ValueError, match="fewer examples"):
        kernel_report(model, X, torch.zeros(1500, 3), outputs="full")
    with pytest.raises(ValueError, match="but 3 outputs"):
        kernel_report(model, X[:10], torch.full((10,), 3))
