"""torch.compile, activation checkpointing and automatic mixed precision change nothing but rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.train.setting import Dropped, network, same, sgd, silent_loss, sparsifier
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint

import bisparse as bs


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def train(
    forward: Any, model: nn.Module, sparse: bs.Sparsifier, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        inputs, targets = (torch.randn(16, 8, generator=generator).double() for _ in range(2))
        optimizer.zero_grad()
        nn.functional.mse_loss(forward(inputs), targets).backward()
        optimizer.step()


def run(wrap: Any = lambda model: model, steps: int = 9) -> tuple[nn.Module, bs.Sparsifier]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    sparse = bs.Sparsifier("2:4t", rule="ste", update_every=2, ignore=[]).prepare(model, optimizer)
    train(wrap(model), model, sparse, optimizer, steps)
    return model, sparse


def test_a_refresh_neither_recompiles_nor_breaks_the_graph() -> None:
    counter = CompileCounter()
    compiled, sparse = run(lambda model: torch.compile(model, backend=counter, fullgraph=True))
    assert counter.frame_count == 1
    assert sparse.metrics()["refreshes"] == 5
    assert sum(row["sad"] for row in sparse.history) > 0
    plain, _ = run()
    assert same(dict(compiled.state_dict()), dict(plain.state_dict()))


def test_compiled_code_sees_the_new_masks() -> None:
    """The real compiler: constants folded from old masks would show here."""
    compiled, sparse = run(lambda model: torch.compile(model, backend="aot_eager"))
    plain, other = run()
    for name, mask in sparse.masks.items():
        assert torch.equal(mask, other.masks[name])
    for one, two in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_compiled_model_is_prepared_under_its_ordinary_names() -> None:
    model = network()
    sparse = sparsifier().prepare(torch.compile(model, backend="eager"))
    assert list(sparse.weights) == ["0.weight", "2.weight"]
    sparsifier().prepare(network()).load_state_dict(sparse.state_dict())


def test_decay_with_a_compiled_model() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    compiled = torch.compile(model, backend="eager")
    for _ in range(3):
        optimizer.zero_grad()
        silent_loss(compiled).backward()
        optimizer.step()
    dropped.check(3)


def test_decay_with_a_compiled_optimizer_step() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(3):
        optimizer.zero_grad()
        silent_loss(model).backward()
        step()
    dropped.check(3)


def test_a_compiled_optimizer_step_compiles_no_hook() -> None:
    """Hooks count steps and call the solver: compiled, they would be compiled anew at each count and refresh."""

    def compilations(sparse: bool) -> tuple[int, nn.Module]:
        torch._dynamo.reset()
        model, counter = network(), CompileCounter()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        if sparse:
            bs.Sparsifier("2:4t", rule="ste", update_every=2, ignore=[]).prepare(model, optimizer)
        step = torch.compile(optimizer.step, backend=counter)
        for number in range(6):
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(number)).double()
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            step()
        return counter.frame_count, model

    dense, _ = compilations(sparse=False)
    count, model = compilations(sparse=True)
    assert count == dense
    assert all((model[index].weight != 0).sum() == 32 for index in (0, 2))


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.inner, inputs.requires_grad_(), use_reentrant=self.reentrant)
        return result


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_bit(reentrant: bool) -> None:
    model, sparse = run(lambda model: Checkpointed(model, reentrant))
    plain, other = run()
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    assert all(torch.equal(mask, other.masks[name]) for name, mask in sparse.masks.items())


def test_decay_with_activation_checkpointing() -> None:
    model = network()
    optimizer = sgd(model)
    dropped = Dropped(sparsifier().prepare(model, optimizer))
    for _ in range(3):
        optimizer.zero_grad()
        silent_loss(Checkpointed(model, False)).backward()
        optimizer.step()
    dropped.check(3)


def test_autocast_keeps_masters_in_full_precision() -> None:
    model = network(dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = bs.Sparsifier("2:4t", update_every=2, ignore=[]).prepare(model, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(4, 8)).float().square().mean()
        loss.backward()
        optimizer.step()
    for weight in sparse.weights.values():
        assert weight.hidden.dtype == torch.float32
        assert not (weight.values * weight.dropped).any()
        assert weight.values.count_nonzero() == weight.mask.sum()
