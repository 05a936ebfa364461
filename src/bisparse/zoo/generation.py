"""Text token by token with a small Llama: keys and values of what came before are kept, not computed again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bisparse.zoo.llama import Llama, rotate

__all__ = ["Decoder", "generate"]


class Decoder:
    """One running text (or a batch of equally long ones).

    Args:
        model: its linear layers are called as modules, so packed ones do their work.
        length: tokens that there is room for.
        batch: texts side by side.
    """

    def __init__(self, model: Llama, length: int, batch: int = 1) -> None:
        self._model = model
        self._layers: list[Any] = list(model.layers)  # Any: a module's attributes are not typed
        self._position = 0
        weight = model.tok_embeddings.weight
        sizes = [(layer.attention.kv_heads, length, layer.attention.head_dim) for layer in self._layers]
        self._caches = [
            torch.zeros((2, batch, *size), dtype=weight.dtype, device=weight.device) for size in sizes
        ]

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        """(B, T) further token ids -> (B, vocabulary) logits of the token after them."""
        begin, end = self._position, self._position + ids.shape[1]
        self._position = end
        model = self._model
        angles = model.angles(torch.arange(begin, end, device=ids.device))
        x: Tensor = model.tok_embeddings(ids)
        for layer, cache in zip(self._layers, self._caches, strict=True):
            x = x + _attend(layer.attention, layer.attention_norm(x), angles, cache, begin, end)
            x = x + layer.feed_forward(layer.ffn_norm(x))
        return F.linear(model.norm(x[:, -1]), model.tok_embeddings.weight)


def _attend(attention: Any, x: Tensor, angles: Tensor, cache: Tensor, begin: int, end: int) -> Tensor:
    """Attention of the tokens ``begin`` to ``end`` to all before them; their keys and values enter the cache."""
    query, key, value = (
        part.unflatten(-1, (-1, cache.shape[-1]))
        for part in (attention.wq(x), attention.wk(x), attention.wv(x))
    )
    query, key = rotate(query, angles), rotate(key, angles)
    cache[0, :, :, begin:end] = key.transpose(1, 2)
    cache[1, :, :, begin:end] = value.transpose(1, 2)
    several = end - begin > 1
    mask = torch.ones(end - begin, end, dtype=torch.bool, device=x.device).tril(begin) if several else None
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2), cache[0, :, :, :end], cache[1, :, :, :end], attn_mask=mask, enable_gqa=True
    )
    out: Tensor = attention.wo(mixed.transpose(1, 2).flatten(2))
    return out


def generate(model: Llama, ids: Tensor, count: int) -> Tensor:
    """Continue texts greedily.

    Args:
        model: in evaluation mode.
        ids: (B, T) token ids, T at least 1.
        count: tokens to add.

    Returns:
        (B, count) token ids.
    """
    decoder = Decoder(model, ids.shape[1] + count, ids.shape[0])
    chosen: list[Tensor] = []
    for _ in range(count):
        ids = decoder.step(ids).argmax(-1, keepdim=True)
        chosen.append(ids)
    return torch.cat(chosen, 1) if chosen else ids[:, :0]
