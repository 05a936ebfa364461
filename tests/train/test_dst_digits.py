"""Trained thresholds on real digits: densities and accuracies of an independent calibration, within 0.1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bisparse as bs
from bisparse.train import Dst
from bisparse.zoo.digits import digits

# (granularity, alpha) -> test accuracy and share of weights left after 40 epochs: means of two runs of other code on
# the same data, network and optimizer. What one scalar per layer leaves at a strong penalty depends on the run.
CALIBRATION = {
    ("vector", 0.0): (0.977, 0.997),
    ("vector", 1e-4): (0.978, 0.831),
    ("vector", 5e-4): (0.978, 0.469),
    ("vector", 2e-3): (0.976, 0.083),
    ("scalar", 5e-4): (0.977, 1.000),
    ("matrix", 5e-6): (0.976, 0.923),
}


def trained(granularity: str, alpha: float) -> tuple[float, float]:
    torch.manual_seed(0)
    data = digits()
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rule = Dst(alpha=alpha, granularity=granularity)
    sparse = bs.Sparsifier("unstructured:0", rule=rule, ignore=[]).prepare(model, optimizer)
    for _ in range(40):
        for chosen in torch.randperm(len(data.train_inputs)).split(50):
            optimizer.zero_grad()
            logits = model(data.train_inputs[chosen])
            nn.functional.cross_entropy(logits, data.train_labels[chosen]).backward()
            optimizer.step()
    hits = (model(data.test_inputs).argmax(1) == data.test_labels).float().mean().item()
    kept = sum(int(mask.sum()) for mask in sparse.masks.values())
    return hits, kept / sum(mask.numel() for mask in sparse.masks.values())


@pytest.mark.timeout(900)
def test_calibration() -> None:
    found = {case: trained(*case) for case in CALIBRATION}
    for case, (accuracy, left) in CALIBRATION.items():
        assert found[case][0] == pytest.approx(accuracy, abs=0.02), case
        assert found[case][1] == pytest.approx(left, abs=0.1), case
    lefts = [found["vector", alpha][1] for alpha in (0.0, 1e-4, 5e-4, 2e-3)]
    assert lefts == sorted(lefts, reverse=True)
