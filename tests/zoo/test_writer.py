from __future__ import annotations

import torch

from bisparse.zoo.llama import Llama, LlamaConfig
from bisparse.zoo.writer import write_stories


def test_stories_follow_the_models_distribution_and_end_where_the_next_begins():
    torch.manual_seed(0)
    config = LlamaConfig(dim=16, hidden_dim=24, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=4)
    model = Llama(config).eval()
    ids, mask = write_stories(model, 4000, 6, seed=1)
    assert torch.equal(ids, write_stories(model, 4000, 6, seed=1)[0])
    assert bool((ids[:, 0] == 1).all())
    assert bool((ids[:, 1:] != 1)[mask[:, 1:]].all())
    assert bool((ids[~mask] == 0).all())
    expected = model(torch.tensor([[1]]))[0, 0].softmax(-1).detach()
    found = torch.stack([(ids[:, 1] == token).float().mean() for token in (0, 2, 3)])
    found[0] -= (~mask[:, 1]).float().mean()  # ended stories are filled up with zeros
    torch.testing.assert_close(found, expected[[0, 2, 3]], atol=0.03, rtol=0)
