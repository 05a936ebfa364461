"""A small GPT: pre-norm blocks, learned positions, tied output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GPT", "gpt"]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self._heads, self._dropout = heads, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width), causal."""
        q, k, v = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        dropout = self._dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout
        )  # (B, heads, T, width/heads)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = _Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self._dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        x = x + F.dropout(self.attention(self.norm1(x)), self._dropout, self.training)
        out = self.down(F.gelu(self.up(self.norm2(x))))
        return x + F.dropout(out, self._dropout, self.training)


class GPT(nn.Module):
    """A causal language model whose output embedding is its input embedding."""

    def __init__(
        self, vocabulary: int, length: int, layers: int, heads: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList([_Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("out.weight", "down.weight"))  # these add to the residual stream
                nn.init.normal_(parameter, std=0.02 / ((2 * layers) ** 0.5 if last else 1.0))

    def forward(self, codes: Tensor) -> Tensor:
        """(B, T) token numbers -> (B, T, vocabulary) logits; T at most the length it was made for."""
        x = self.tokens(codes) + self.positions.weight[: codes.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)

    @torch.no_grad()
    def write(self, codes: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, T) -> (B, T + count): tokens drawn one by one from the model's distribution."""
        for _ in range(count):
            logits = self(codes[:, -self.positions.num_embeddings :])[:, -1]
            codes = torch.cat([codes, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
        return codes


def gpt(
    vocabulary: int = 65,
    length: int = 64,
    layers: int = 4,
    heads: int = 4,
    width: int = 128,
    dropout: float = 0.0,
) -> GPT:
    """An untrained small GPT; the defaults are those that nanoGPT recommends for a processor (0.8M parameters).

    Raises:
        ValueError: ``width`` is no multiple of ``heads``.

    Source: A. Karpathy, nanoGPT, ``README.md``, "I only have a macbook".
    """
    return GPT(vocabulary, length, layers, heads, width, dropout)
