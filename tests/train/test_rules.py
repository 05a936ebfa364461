"""Rules on numbers that can be checked by eye, and against the formulas of their papers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bisparse as bs
from bisparse.train import RULES, Hard, Rule, SrSte, SSte, Ste
from bisparse.train.by_name import by_name
from bisparse.train.topology import Projection

W = torch.tensor(
    [[9.0, 8.0, 1.0, -2.0],
     [7.0, -9.0, 3.0, 1.0],
     [8.0, 1.0, 2.0, 6.0],
     [2.0, 3.0, 7.0, -5.0]],
    dtype=torch.float64,
)  # fmt: skip
E = torch.tensor(
    [[1, 1, 0, 0],
     [1, 1, 0, 0],
     [1, 0, 0, 1],
     [0, 0, 1, 1]],
).double()  # fmt: skip


def one_layer(values: Tensor = W) -> nn.Linear:
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


def whole(sparse: bs.Sparsifier) -> Tensor:
    weight = sparse.weights["weight"]
    return weight.hidden if sparse.rule.hides_all else weight.values + weight.hidden


def step(
    rule: str | Rule, gradient: Tensor, *, rate: float = 0.5, decay: float = 0.0
) -> tuple[Tensor, Tensor]:
    """W after one SGD step with this gradient, and what the parameter shows."""
    layer = one_layer()
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, weight_decay=decay)
    sparse = bs.Sparsifier("2:4", rule=rule, update_every=100, ignore=[]).prepare(layer, optimizer)
    assert torch.equal(sparse.masks["weight"].double(), E)
    layer.weight.grad = gradient.clone()
    optimizer.step()
    return whole(sparse), layer.weight.detach()


G = torch.arange(16.0, dtype=torch.float64).reshape(4, 4) / 16.0


def test_ste_moves_every_entry() -> None:
    after, shown = step("ste", G)
    assert torch.equal(after, W - 0.5 * G)
    assert torch.equal(shown, (W - 0.5 * G) * E)


def test_hard_moves_kept_entries_only() -> None:
    after, shown = step("hard", G)
    assert torch.equal(after, W - 0.5 * G * E)
    assert torch.equal(shown, (W - 0.5 * G) * E)


def test_sr_ste_follows_its_formula() -> None:
    after, _ = step(SrSte(0.25), G, decay=0.125)
    expected = W - 0.5 * (G + 0.25 * (1 - E) * W + 0.125 * W)
    torch.testing.assert_close(after, expected, rtol=1e-15, atol=1e-15)


def test_sr_ste_without_decay_is_ste_bit_for_bit() -> None:
    torch.manual_seed(0)
    results = []
    for rule in ("ste", SrSte(0.0), SrSte(0.0, mode="decoupled")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        bs.Sparsifier("2:4t", rule=rule, update_every=3, ignore=[]).prepare(model, optimizer)
        inputs, targets = torch.randn(8, 16), torch.randn(8, 16)
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_decoupled_decay_does_not_pass_through_adam() -> None:
    layer = one_layer()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.5, weight_decay=0.0)
    sparse = bs.Sparsifier("2:4", rule=SrSte(0.25, mode="decoupled"), ignore=[]).prepare(layer, optimizer)
    layer.weight.grad = torch.zeros_like(W)
    optimizer.step()
    assert torch.equal(whole(sparse), W * E + (1 - E) * W * (1 - 0.5 * 0.25))


def test_explicit_steps_follow_the_same_formulas() -> None:
    for rule, expected in [
        ("ste", W - 0.5 * (G + 0.125 * W)),
        ("hard", W - 0.5 * (G * E + 0.125 * W)),
        (SrSte(0.25), W - 0.5 * (G + 0.25 * (1 - E) * W + 0.125 * W)),
    ]:
        layer = one_layer()
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=0.125)
        sparse = bs.Sparsifier("2:4", rule=rule, ignore=[]).prepare(layer).attach(optimizer, explicit=True)
        layer.weight.grad = G.clone()
        optimizer.step()
        sparse.step()
        torch.testing.assert_close(whole(sparse), expected, rtol=1e-15, atol=1e-15)


def test_soft_threshold_of_rows_by_eye() -> None:
    layer = one_layer()
    sparse = bs.Sparsifier("2:4", rule="s-ste", ignore=[]).prepare(layer)
    soft = torch.tensor(
        [[7.0, 6.0, 0.0, 0.0],
         [4.0, -6.0, 0.0, 0.0],
         [6.0, 0.0, 0.0, 4.0],
         [0.0, 0.0, 4.0, -2.0]],
        dtype=torch.float64,
    )  # fmt: skip
    beta = (W * soft).sum() / (soft * soft).sum()
    torch.testing.assert_close(layer.weight.detach(), beta * soft)
    assert torch.equal(whole(sparse), W)


@pytest.mark.parametrize("pattern", ["2:4", "2:4t", "4:8t", "unstructured:0.5"])
def test_soft_threshold_obeys_the_pattern_trains_and_keeps_its_scale(pattern: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 24, bias=False).double()
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    sparse = bs.Sparsifier(pattern, rule="s-ste", update_every=2, ignore=[]).prepare(layer, optimizer)
    scale = sparse.weights["weight"].extra["scale"].clone()
    for _ in range(5):
        assert bs.verify_mask(sparse.masks["weight"], pattern).feasible
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    torch.testing.assert_close(whole(sparse), before - 0.5)
    assert torch.equal(scale, sparse.weights["weight"].extra["scale"])
    assert not (layer.weight.detach() * ~sparse.masks["weight"]).any()
    assert scale > 1


def test_explicit_soft_threshold_takes_the_optimizer_s_step() -> None:
    layer = one_layer()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    sparse = bs.Sparsifier("2:4", rule=SSte(), ignore=[]).prepare(layer).attach(optimizer, explicit=True)
    layer.weight.grad = G.clone()
    optimizer.step()
    sparse.step()
    torch.testing.assert_close(whole(sparse), W - 0.5 * G)


def test_soft_threshold_needs_potentials() -> None:
    with pytest.raises(ValueError, match='weight: rule "s-ste" needs the potentials'):
        bs.Sparsifier("2:4t", rule="s-ste", topology=Projection(method="greedy"), ignore=[]).prepare(
            one_layer()
        )


def test_rules_by_name() -> None:
    assert by_name("SR_STE", RULES, Rule) == SrSte(2e-4, "coupled")
    assert isinstance(by_name("hard", RULES, Rule), Hard)
    assert by_name(mine := Ste(), RULES, Rule) is mine
    assert set(RULES) == {"hard", "ste", "sr-ste", "sr-ste-decoupled", "s-ste", "dst"}


def test_errors_name_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown rule 'srste'; choose one of hard, ste, sr-ste"):
        by_name("srste", RULES, Rule)
    with pytest.raises(TypeError, match="got int"):
        by_name(3, RULES, Rule)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="coupled"):
        SrSte(mode="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decay=nan: lambda is a finite number"):
        SrSte(float("nan"))
