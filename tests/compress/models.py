"""Small modules of every kind, with data that reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["KINDS", "Conv1D", "GroupedExperts", "Kind", "LoopExperts", "TinyAttention"]


class Conv1D(nn.Module):
    """As in transformers: weight (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class LoopExperts(nn.Module):
    """Three experts, each multiplied with its own share of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 8, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        route = torch.arange(len(x)) % 3
        out = x.new_zeros(len(x), 8)
        for expert in range(3):
            out[route == expert] = nn.functional.linear(x[route == expert], self.up[expert])
        return out


class GroupedExperts(LoopExperts):
    """The same in one product over rows that are sorted by expert, as in transformers."""

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([len(x) // 2, len(x) // 2 + 8, len(x)], dtype=torch.int32)
        out: Tensor = nn.functional.grouped_mm(x, self.up.transpose(1, 2), offs=ends)
        return out


class TinyAttention(nn.Module):
    """Self-attention as a module of one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class First(nn.Module):
    """The first output of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)[0]


class CellLoop(nn.Module):
    """A cell that is called once per time step of (T, B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x:
            state = self.cell(step, state)
        assert state is not None
        return state[0]


class TiedPair(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu())
        return out


@dataclass
class Kind:
    """A module and the shape of one batch."""

    make: Any
    shape: tuple[int, ...]


KINDS = {
    "linear": Kind(lambda: nn.Linear(16, 8), (200, 16)),
    "hf_conv1d": Kind(lambda: Conv1D(8, 16), (20, 10, 16)),
    "conv1d": Kind(lambda: nn.Conv1d(8, 8, 3, stride=2, dilation=2, padding=2), (20, 8, 15)),
    "conv2d_groups": Kind(
        lambda: nn.Conv2d(16, 8, 3, padding=1, groups=2, padding_mode="reflect"), (8, 16, 7, 7)
    ),
    "conv3d": Kind(lambda: nn.Conv3d(8, 8, 2), (8, 8, 4, 4, 4)),
    "conv_transpose2d": Kind(lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1), (8, 8, 6, 6)),
    "attention": Kind(TinyAttention, (10, 12, 16)),
    "rnn": Kind(lambda: First(nn.RNN(8, 8, batch_first=True)), (16, 10, 8)),
    "gru": Kind(lambda: First(nn.GRU(8, 8, 2, bidirectional=True)), (10, 16, 8)),
    "lstm": Kind(lambda: First(nn.LSTM(8, 8, proj_size=4)), (10, 16, 8)),
    "lstm_cell": Kind(CellLoop, (4, 100, 8)),
    "experts": Kind(LoopExperts, (300, 16)),
    "grouped_experts": Kind(GroupedExperts, (300, 16)),
    "tied": Kind(TiedPair, (200, 8)),
}
