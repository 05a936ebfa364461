from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.compress import fold_batch_norm_, prune, prune_
from bisparse.compress.batch_norm import trial_statistics


def convnet(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )
    with torch.no_grad():
        model[3].weight.abs_()  # pruning then moves the means
        for _ in range(20):
            model.train()(torch.randn(64, 3, 6, 6) + 0.5)
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
    return model.eval()


def images(count=4):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(32, 3, 6, 6, generator=generator) + 0.5 for _ in range(count)]


def test_trial_finds_the_statistics_and_prefers_them_only_when_the_scale_really_changed():
    norm = nn.BatchNorm2d(2).eval()
    dense = [torch.randn(64, 2, 5, 5)]
    shrunk = trial_statistics(norm, [0.5 * dense[0] + 1.0], dense)
    assert shrunk.helps
    torch.testing.assert_close(shrunk.mean, torch.ones(2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shrunk.variance, torch.full((2,), 0.25), atol=1e-5, rtol=1e-4)
    rest = torch.randn(64, 2, 5, 5)  # what a least-squares fit cannot explain: its output is rightly smaller
    assert not trial_statistics(norm, dense, [dense[0] + rest]).helps


def test_statistics_are_kept_only_where_they_help_and_the_output_gains():
    model, data = convnet(), images()
    outputs = {}
    for batch_norm in (False, True):
        pruned = prune(model, "1:4", reconstruct="none", calibration=data, batch_norm=batch_norm)
        outputs[batch_norm] = float(
            sum((pruned.model(x) - model(x)).detach().square().sum() for x in images(6)[4:])
        )
        decisions = pruned.report.batch_norms
        assert set(decisions) == ({"1", "4"} if batch_norm else set())
    assert decisions["1"].startswith("kept")  # nothing before it was pruned
    assert decisions["4"].startswith("re-estimated")
    assert torch.equal(pruned.model[1].running_mean, model[1].running_mean)
    assert not torch.equal(pruned.model[4].running_var, model[4].running_var)
    assert outputs[True] < outputs[False]


def test_folding_keeps_outputs_and_zeros():
    model = convnet()
    prune_(model, "2:4")
    zeros = model[3].weight == 0
    x = images(1)[0]
    expected = model(x)
    assert fold_batch_norm_(model, x) == ["1", "4"]
    assert isinstance(model[4], nn.Identity)
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(model[3].weight == 0, zeros)


class Reused(nn.Module):
    """The convolution's output is also used beside its batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.norm.running_mean += 1.0

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


def test_pairs_that_cannot_be_folded_are_left_alone():
    model = Reused().eval()
    x = images(1)[0]
    expected = model(x)
    assert fold_batch_norm_(model, x) == []
    assert torch.equal(model(x), expected)
    with pytest.raises(ValueError, match="eval"):
        fold_batch_norm_(model.train(), x)


class Speech(nn.Module):
    """Channels by time with padding, as in speech models."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv1d(8, 8, 1), nn.BatchNorm1d(8), nn.Conv1d(8, 8, 1)

    def forward(self, frames, attention_mask):
        return self.last(self.norm(self.first(frames * attention_mask[:, None])))


def test_padding_does_not_enter_the_statistics():
    mask = torch.ones(6, 20, dtype=torch.long)
    mask[:, 12:] = 0
    frames = torch.randn(6, 8, 20)
    batches = [
        {"frames": frames, "attention_mask": mask},
        {"frames": frames[..., :12], "attention_mask": mask[:, :12]},
    ]
    decisions = [
        prune(Speech().eval(), "1:4", ignore=[], calibration=[batch], reconstruct="none").report.batch_norms
        for batch in batches
    ]
    assert decisions[0] == decisions[1]
