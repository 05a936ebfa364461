from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bisparse.compress import prune
from bisparse.compress.residual import Residual, find_residuals
from bisparse.compress.streams import Spot


class Block(nn.Module):
    """x + f(x), through a batch norm where asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.first, self.last = nn.Conv1d(8, 8, 3, padding=1), nn.Conv1d(8, 8, 1)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()

    def forward(self, x):
        return self.norm(self.last(F.relu(self.first(x)))) + x


class Net(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        self.blocks = nn.Sequential(*[Block(norm) for _ in range(3)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(x).mean(2))


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(192, 8, 12, generator=generator).split(64))


def test_sums_are_found_with_their_other_summand():
    for norm in (False, True):
        model = Net(norm).eval()
        found = find_residuals(
            model, lambda m=model: m(data()[0]), [m for m in model.modules() if isinstance(m, nn.Conv1d)]
        )
        assert set(found) == {block.last for block in model.blocks}
        for block in model.blocks:
            assert found[block.last].norm is (block.norm if norm else None)
            assert found[block.last].spot.side == "input"
            assert found[block.last].spot.module in (block, block.first)


class Parallel(nn.Module):
    """The other summand is made after the layer: it cannot be known when the layer is solved."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        left = self.a(x)
        return left + self.b(x)


def test_only_summands_that_exist_in_time_count():
    model = Parallel()
    found = find_residuals(model, lambda: model(torch.randn(3, 4)), [model.a, model.b])
    assert set(found) == {model.b}
    assert found[model.b].spot == Spot(model.a, "output")


def test_correction_through_a_batch_norm_restores_the_sum():
    norm = nn.BatchNorm1d(3).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.0]))
        norm.running_var.copy_(torch.tensor([4.0, 1.0, 1.0]))
    dense, pruned, output = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 3)
    change = Residual(Spot(norm, "input"), norm).correction(dense, pruned)
    left, right = norm(output + change) + pruned, norm(output) + dense
    torch.testing.assert_close(left[:, :2], right[:, :2], atol=0.2, rtol=0.1)  # softened by a tenth
    assert bool((change[:, 2] == 0).all())  # a channel without slope can mend nothing
    assert torch.equal(Residual(Spot(norm, "input"), None).correction(dense, pruned), dense - pruned)


def test_aiming_at_sums_lowers_the_error_of_the_whole_network():
    torch.manual_seed(0)
    for norm in (False, True):
        model = Net(norm).eval()
        error = {}
        for residual in (False, True):
            options = {
                "calibration": data(),
                "reconstruct": "least_squares",
                "scores": "obs",
                "ignore": ["head"],
            }
            pruned = prune(model, "1:4", residual=residual, **options).model
            fresh = torch.cat(data(1))
            error[residual] = float((pruned(fresh) - model(fresh)).detach().norm())
        assert error[True] < error[False]
