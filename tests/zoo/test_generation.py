"""Decoding with kept keys and values gives what the whole text gives."""

from __future__ import annotations

import torch

import bisparse as bs
from bisparse.zoo.generation import Decoder, generate
from bisparse.zoo.llama import Llama, LlamaConfig


def small() -> Llama:
    torch.manual_seed(0)
    return Llama(
        LlamaConfig(dim=32, hidden_dim=48, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=50)
    ).eval()


@torch.no_grad()
def test_logits_are_those_of_the_whole_text() -> None:
    model, ids = small(), torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    decoder = Decoder(model, 9, 3)
    torch.testing.assert_close(decoder.step(ids[:, :4]), whole[:, 3])
    torch.testing.assert_close(decoder.step(ids[:, 4:6]), whole[:, 5])
    for place in range(6, 9):
        torch.testing.assert_close(decoder.step(ids[:, place : place + 1]), whole[:, place])


@torch.no_grad()
def test_generated_text_is_the_greedy_one_also_from_packed_layers() -> None:
    model, ids = small(), torch.tensor([[1, 7, 3]])
    bs.prune_(model, "4:8", ignore=["tok_embeddings"])
    text = ids
    for _ in range(6):
        text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(generate(model, ids, 6), text[:, 3:])
    fast = bs.accelerate(model, lambda net: generate(net, ids, 6), min_gain=1.0, show=False)
    assert torch.equal(generate(fast.model, ids, 6), text[:, 3:])
    assert generate(model, ids, 0).shape == (1, 0)
    assert {row.tokens for row in fast.report.layers} == {1, 3}
