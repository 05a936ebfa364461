"""A small Llama: RMS norm, rotary positions, grouped-query attention, gated feed-forward, tied output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.zoo.folder import data_file

__all__ = ["Llama", "LlamaConfig", "pretrained_llama", "rotate"]


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes; the defaults are those of ``stories260K``."""

    dim: int = 64
    hidden_dim: int = 172
    n_layers: int = 5
    n_heads: int = 8
    n_kv_heads: int = 4
    vocab_size: int = 512
    max_seq_len: int = 512
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate neighbouring pairs of (B, T, heads, head_dim) by (T, head_dim / 2) angles."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)


class _Attention(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim, self.kv_heads = config.dim // config.n_heads, config.n_kv_heads
        self.wq = nn.Linear(config.dim, config.n_heads * self.head_dim, bias=False)
        self.wk = nn.Linear(config.dim, config.n_kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(config.dim, config.n_kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(config.n_heads * self.head_dim, config.dim, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim), causal."""
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)) for part in (self.wq(x), self.wk(x), self.wv(x))
        )
        query, key = rotate(query, angles), rotate(key, angles)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # (B, heads, T, head_dim)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class _FeedForward(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class _Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.attention = _Attention(config)
        self.ffn_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = _FeedForward(config)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        x = x + self.attention(self.attention_norm(x), angles)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class Llama(nn.Module):
    """A causal language model with tied input and output embeddings."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config.n_layers)])
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)
        self._head_dim, self._theta = config.dim // config.n_heads, config.rope_theta

    def angles(self, positions: Tensor) -> Tensor:
        """(T,) positions -> (T, head_dim / 2) angles by which their queries and keys are rotated."""
        pairs = torch.arange(0, self._head_dim, 2, device=positions.device) / self._head_dim
        return positions[:, None] * self._theta ** -pairs.float()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(B, T) token ids -> (B, T, vocabulary) logits.

        Padding must follow the text: causal attention then never looks at it, and ``attention_mask`` only
        tells calibration which tokens are real.
        """
        angles = self.angles(torch.arange(input_ids.shape[1], device=input_ids.device))
        x = self.tok_embeddings(input_ids)
        for layer in self.layers:
            x = layer(x, angles)
        return F.linear(self.norm(x), self.tok_embeddings.weight)


def pretrained_llama(folder: str | Path | None = None) -> Llama:
    """``stories260K`` (260 032 parameters), in evaluation mode; loss per token on its stories about 1.3.

    Raises:
        FileNotFoundError: the checkpoint is not in the folder of real data.

    Source: A. Karpathy, llama2.c, ``doc/stories260K.md``.
    """
    content = torch.load(data_file("tinyllama/stories260K.pt", folder), map_location="cpu", weights_only=True)
    known = {field.name for field in fields(LlamaConfig)}
    config = LlamaConfig(**{name: value for name, value in content["config"].items() if name in known})
    network = Llama(config)
    network.load_state_dict(content["state_dict"])
    return network.eval()
