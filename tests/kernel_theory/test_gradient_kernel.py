from __future__ import annotations

import copy

import pytest
import torch
from tests.kernel_theory.networks import problem, three_layer, two_layer
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.jacobian import plan_jacobian
from bisparse.kernel_theory.network import prepare
from bisparse.masks.solve import solve_mask

F64 = torch.float64


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, stride=2, groups=2, dilation=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 12),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(12),
        nn.Linear(12, 4),
    )


class Shared(nn.Module):
    """One layer called twice, one weight tied, one used by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.tied, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.by_hand = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        x = torch.tanh(self.other(torch.tanh(self.tied(x))))
        return self.by_hand(x) + F.linear(x, self.by_hand.weight.square())


class Sequence(nn.Module):
    """Tokens to logits: embedding, positions, convolution over time, norm."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 6)
        self.conv = nn.Conv1d(6, 5, 3, padding=1, dilation=1)
        self.norm = nn.LayerNorm(5)
        self.mix = nn.Linear(5, 4)

    def forward(self, codes: Tensor) -> Tensor:
        return self.mix(self.norm(self.conv(self.tokens(codes).transpose(1, 2)).transpose(1, 2)).tanh()).mean(
            1
        )


MODELS = {
    "cnn": (cnn, (9, 3, 8, 8)),
    "shared": (Shared, (7, 6)),
    "three layers": (lambda: three_layer(outputs=3), (8, 4)),
}


def make(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    build, shape = MODELS[name]
    model, X = build(), torch.randn(shape)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # norms that scale and shift
    model.train()(X.to(parameter.dtype))  # and have seen data
    return model, X


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("outputs", ["trace", "full", 1, [0, 2]])
def test_closed_forms_and_blocks_agree_with_torch_func(name: str, outputs: object) -> None:
    model, X = make(name)
    generic = gradient_kernel(model, X, outputs=outputs, method="generic", dtype=F64)
    auto = gradient_kernel(model, X, outputs=outputs, dtype=F64)
    plan, _ = plan_jacobian(prepare(model, dtype=F64), X, outputs)
    blocks = gradient_kernel(model, X, outputs=outputs, dtype=F64, memory=4 * plan.row_bytes)
    torch.testing.assert_close(auto, generic, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(blocks, generic, rtol=1e-12, atol=1e-12)
    assert torch.equal(auto, auto.T)
    assert float(torch.linalg.eigvalsh(auto)[0]) > -1e-12 * float(auto.trace())
    cross = gradient_kernel(model, X[:3], X, outputs=outputs, dtype=F64, memory=4 * plan.row_bytes)
    torch.testing.assert_close(cross, generic[: len(cross)], rtol=1e-12, atol=1e-12)


def test_layers_are_trusted_only_where_they_are_right() -> None:
    model, X = make("shared")
    plan, _ = plan_jacobian(prepare(model), X, "trace")
    assert plan.layers == ("other", "twice")  # of `other` only the bias: its weight is tied
    assert set(plan.generic) == {"tied.weight", "tied.bias", "by_hand.weight", "by_hand.bias"}
    dense, _ = plan_jacobian(prepare(make("cnn")[0]), make("cnn")[1], "trace")
    assert dense.outer >= {"10"}
    assert dense.generic == ()


def test_tokens_norms_and_positions() -> None:
    torch.manual_seed(0)
    model, X = Sequence(), torch.randint(7, (5, 4))
    auto, generic = (gradient_kernel(model, X, method=method, dtype=F64) for method in ("auto", "generic"))
    assert plan_jacobian(prepare(model), X, "trace")[0].generic == ("tokens.weight",)
    torch.testing.assert_close(auto, generic, rtol=1e-12, atol=1e-12)


def test_the_trace_is_the_sum_over_outputs() -> None:
    model, X = make("three layers")
    single = torch.stack([gradient_kernel(model, X, outputs=output) for output in range(3)])
    torch.testing.assert_close(gradient_kernel(model, X), single.sum(0), rtol=1e-12, atol=1e-12)
    full = gradient_kernel(model, X, outputs="full").reshape(8, 3, 8, 3)
    torch.testing.assert_close(full[:, 1, :, 1], single[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_two_layer_closed_form(squared: bool) -> None:
    """K = Σ_j σ(u_j x) σ(u_j x') + Σ_j w_j² σ'(u_j x) σ'(u_j x') x·x'."""
    X, _, _ = problem(20, 5)
    model = two_layer(5, 16, squared=squared)
    U, w = model[0].weight.detach(), model[2].weight.detach()[0]
    features = model[1](X @ U.T)
    slopes = 2 * torch.relu(X @ U.T) if squared else (X @ U.T > 0).double()
    expected = features @ features.T + ((slopes * w**2) @ slopes.T) * (X @ X.T)
    torch.testing.assert_close(gradient_kernel(model, X), expected, rtol=1e-12, atol=1e-12)


def test_outputs_move_by_the_kernel() -> None:
    """df/dt = -K r / n along gradient flow, and dLoss/dt = -|g|², by central differences."""
    X, y, _ = problem(20, 5)
    model = two_layer(5, 16, squared=True)
    step = 1e-6

    def loss_and_outputs(network: nn.Module) -> tuple[Tensor, Tensor]:
        f = network(X)[:, 0]
        return (f - y).square().mean() / 2, f

    loss, f = loss_and_outputs(model)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    moved = []
    for sign in (1, -1):
        other = copy.deepcopy(model)
        for parameter, gradient in zip(other.parameters(), gradients, strict=True):
            parameter.data -= sign * step * gradient
        moved.append([value.detach() for value in loss_and_outputs(other)])
    speed = (moved[0][1] - moved[1][1]) / (2 * step)
    expected = -gradient_kernel(model, X) @ (f - y).detach() / len(X)
    assert float((speed - expected).norm() / expected.norm()) < 1e-8
    descent = float(moved[0][0] - moved[1][0]) / (2 * step)
    squares = sum(float(gradient.square().sum()) for gradient in gradients)
    assert abs(descent + squares) < 1e-8 * squares


@pytest.mark.parametrize("pattern", ["2:4t", "2:4", "unstructured:0.5"])
def test_masked_kernel_is_that_of_the_kept_entries(pattern: str) -> None:
    torch.manual_seed(0)
    X, y, _ = problem(25, 8)
    model = two_layer(8, 16, squared=True)
    mask = solve_mask(torch.rand(16, 8), pattern).mask
    masked = gradient_kernel(model, X, masks={"0.weight": mask})
    generic = gradient_kernel(model, X, masks={"0": mask}, method="generic")
    torch.testing.assert_close(masked, generic, rtol=1e-12, atol=1e-12)
    model[0].weight.data *= mask
    rows = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in model(X)[:, 0]]
    J = torch.stack([torch.cat([(first * mask).flatten(), last.flatten()]) for first, last in rows])
    torch.testing.assert_close(masked, J @ J.T, rtol=1e-12, atol=1e-12)  # masked columns at zero
    torch.testing.assert_close(gradient_kernel(model, X, masks="zeros"), masked, rtol=1e-12, atol=1e-12)
    assert int(torch.linalg.matrix_rank(masked)) <= int(mask.sum()) + 16
    step = 1e-5
    loss = (model(X)[:, 0] - y).square().mean() / 2
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    residual, before = (model(X)[:, 0] - y).detach(), model(X)[:, 0].detach()
    model[0].weight.data -= step * mask * gradients[0]  # one step of a masked optimizer
    model[2].weight.data -= step * gradients[1]
    expected = -masked @ residual / len(X)
    assert float(((model(X)[:, 0] - before).detach() / step - expected).norm() / expected.norm()) < 1e-3


def test_chosen_parameters_add_up() -> None:
    model, X = make("cnn")
    total = gradient_kernel(model, X, dtype=F64)
    parts = [
        gradient_kernel(model, X, dtype=F64, params=names) for names in ("0", ["1", "3"], "re:(6|9|10)$")
    ]
    torch.testing.assert_close(sum(parts), total, rtol=1e-12, atol=1e-12)
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    torch.testing.assert_close(gradient_kernel(model, X, dtype=F64), total - parts[0], rtol=1e-12, atol=1e-12)


def test_the_model_is_left_alone() -> None:
    model, X = make("cnn")
    model.train()
    state = copy.deepcopy(model.state_dict())
    gradient_kernel(model, X, masks={"0": torch.zeros(8, 3, 3, 3)})
    assert model.training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class CoupledRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0))


class RandomRows(CoupledRows):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(x, 0.5))


class Pooled(CoupledRows):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).mean(0)


def diverged() -> nn.Module:
    model = nn.Linear(4, 2)
    model.weight.data[0, 0] = float("nan")
    return model


def frozen() -> nn.Module:
    return nn.Linear(4, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (CoupledRows, {}, "depends on the other examples"),
        (RandomRows, {}, "different outputs for the same inputs"),
        (Pooled, {}, "rows"),
        (lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)), {}, "running"),
        (frozen, {}, "no parameter to differentiate by"),
        (lambda: nn.Linear(4, 2), {"params": "head"}, "matches no weight"),
        (lambda: nn.Linear(4, 2), {"masks": {"weight": torch.ones(2, 2)}}, "shape"),
        (lambda: nn.Linear(4, 2), {"masks": {"head": torch.ones(2, 4)}}, "no parameter"),
        (lambda: nn.Linear(4, 2), {"masks": "ones"}, "'zeros'"),
        (lambda: nn.Linear(4, 2), {"outputs": "all"}, "'trace'"),
        (lambda: nn.Linear(4, 2), {"outputs": 2}, "outputs 0 to 1"),
        (lambda: nn.Linear(4, 2), {"method": "fast"}, "method"),
        (lambda: nn.Linear(4, 2), {"memory": 10}, "raise it"),
        (lambda: nn.Linear(4, 5000), {}, "take at most 4096"),
        (diverged, {}, "NaN or infinity"),
    ],
)
def test_refusals_say_why(build: type[nn.Module], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_kernel(build(), torch.randn(6, 4), **options)


class ByValue(nn.Module):
    """Control flow that depends on the data: torch.func cannot vectorise it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        rows = [row * self.scale if float(row.sum()) > 0 else row * self.scale.square() for row in x]
        return torch.stack(rows)


def test_models_that_cannot_be_vectorised_are_done_row_by_row() -> None:
    X = torch.tensor([[1.0, 1.0], [-1.0, -2.0]])
    # J = diag(x) for the first, diag(2 s x) for the second: K = [[2, -4 - 12], [., 16 + 144]]
    assert torch.equal(gradient_kernel(ByValue(), X), torch.tensor([[2.0, -16.0], [-16.0, 160.0]]))
