"""What devices other than the CPU do (boolean masks, few launches), done on the CPU: the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.train.setting import network, same
from torch import nn

import bisparse as bs
from bisparse.train import RULES, Schedule, SrSte, device
from bisparse.train.measures.bits import count, pack, unpack


def trained(**options: Any) -> dict[str, Any]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    sparse = bs.Sparsifier("2:4t", update_every=2, ignore=[], **options).prepare(model, optimizer)
    for step in range(5):
        inputs, targets = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(step)).double()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        assert all(not (weight.values * weight.dropped).any() for weight in sparse.weights.values())
    return {"model": dict(model.state_dict()), "sparsifier": sparse.state_dict(compact=False)}


EVOLVING = [{"topology": name, "schedule": Schedule(every=2, freeze=4)} for name in ("set", "rigl")]


@pytest.mark.parametrize("options", [*({"rule": rule} for rule in RULES), *EVOLVING], ids=str)
def test_every_rule(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = trained(**options)
    monkeypatch.setattr(device, "on_cpu", lambda tensor: False)
    assert same(trained(**options), here)


@pytest.mark.parametrize("rule", ["ste", "hard", SrSte(0.1)], ids=str)
def test_explicit_steps_and_scaled_gradients(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[torch.Tensor]:
        model = network(dtype=torch.float32)
        fused, plain = (
            torch.optim.SGD(model[index].parameters(), lr=0.1, fused=fused)
            for index, fused in ((0, True), (2, False))
        )
        sparse = bs.Sparsifier("2:4t", rule=rule, update_every=1, ignore=[]).prepare(model, fused)
        sparse.attach(plain, explicit=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(3):
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            model.zero_grad()
            scaler.scale(model(inputs).square().mean()).backward()
            scaler.step(fused)
            scaler.step(plain)
            scaler.update()
            sparse.step()
        return [weight.values + weight.hidden for weight in sparse.weights.values()]

    here = run()
    monkeypatch.setattr(device, "on_cpu", lambda tensor: False)
    assert all(map(torch.equal, run(), here))


@pytest.mark.parametrize("shape", [(3, 5), (4, 3, 3, 3), (8, 16), (0, 7), (5, 0)], ids=str)
def test_bits(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a weight may be empty, where it has fewer rows than there are processes."""
    mask = torch.rand(shape) > 0.5
    here = pack(mask), unpack(pack(mask), shape), int(count(mask))
    monkeypatch.setattr(device, "on_cpu", lambda tensor: False)
    assert torch.equal(pack(mask), here[0])
    assert torch.equal(unpack(here[0], shape), mask)
    assert int(count(mask)) == here[2]
