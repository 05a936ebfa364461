"""Pairs of samples: what they are, and the same for the same generator."""

from __future__ import annotations

import pytest
import torch

from bisparse.mixup import mix_pairs


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_sample_is_what_the_mixture_says(dtype):
    inputs = torch.randn(16, 3, 5, generator=_generator()).to(dtype)
    mixed, other, share = mix_pairs(inputs, 0.5, _generator())
    assert mixed.dtype == dtype
    assert sorted(other.tolist()) == list(range(16))
    assert float(share.min()) >= 0.0
    assert float(share.max()) <= 0.5
    for i in range(16):
        assert torch.allclose(mixed[i], inputs[i].lerp(inputs[other[i]], share[i]), rtol=1e-2)


def test_the_same_generator_gives_the_same_pairs():
    inputs = torch.randn(8, 4, generator=_generator())
    assert torch.equal(
        mix_pairs(inputs, 0.9, _generator()).inputs, mix_pairs(inputs, 0.9, _generator()).inputs
    )


def test_no_share_leaves_the_inputs_as_they_are():
    inputs = torch.randn(8, 4, generator=_generator())
    assert torch.equal(mix_pairs(inputs, 0.0, _generator()).inputs, inputs)


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match=r"mixup=1\.2: a share lies between 0 and 1"):
        mix_pairs(torch.ones(4, 2), 1.2)
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        mix_pairs(torch.arange(4), 0.5)
