"""Small models: sizes as published, causality, errors."""

from __future__ import annotations

import pytest
import torch

from bisparse.zoo.gpt import gpt
from bisparse.zoo.lenet import lenet5, lenet_300_100


def test_lenets_have_the_published_sizes():
    assert sum(p.numel() for p in lenet5().parameters()) == 431_080
    assert sum(p.numel() for p in lenet_300_100().parameters()) == 266_610
    assert lenet5()(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert lenet_300_100()(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_a_gpt_does_not_see_the_future():
    torch.manual_seed(0)
    model = gpt(vocabulary=11, length=8, layers=2, heads=2, width=16).eval()
    codes = torch.randint(11, (1, 8))
    other = codes.clone()
    other[0, 5] = (other[0, 5] + 1) % 11
    before, after = model(codes), model(other)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_a_gpt_writes_and_repeats_itself_with_the_same_generator():
    model = gpt(vocabulary=5, length=4, layers=1, heads=1, width=8).eval()
    start = torch.zeros(1, 1, dtype=torch.long)
    texts = [model.write(start, 9, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert texts[0].shape == (1, 10)
    assert torch.equal(*texts)


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of heads"):
        gpt(width=10, heads=4)
