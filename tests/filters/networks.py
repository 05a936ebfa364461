"""Small networks whose channels hang together in every way that the trace must see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NETWORKS", "Branches", "HardCoded", "Residual", "Shuffled"]


class Residual(nn.Module):
    """conv - bn - relu, a residual block, pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.bn1 = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.two = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.two(F.relu(self.bn1(self.one(x)))))
        out: Tensor = self.head(F.avg_pool2d(x, 2).flatten(1))
        return out


class Branches(nn.Module):
    """Concatenation, grouped and depthwise convolutions, a squeeze-and-excitation gate, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 10, 3, padding=1)
        self.slope = nn.PReLU(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=2)
        self.squeeze, self.excite = nn.Linear(12, 4), nn.Linear(4, 12)
        self.head = nn.Conv2d(12, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(torch.cat([self.left(x), self.right(x)], 1))
        x = F.relu(self.grouped(F.relu(self.depthwise(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        out: Tensor = self.head(x * gate[:, :, None, None])
        return out


class Attention(nn.Module):
    """Pre-norm attention with four heads and a gated hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(20, 16)
        self.heads = 4

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        value, gate = self.up(self.norm2(x)).chunk(2, -1)
        out: Tensor = x + self.down(value * F.silu(gate))
        return out


class Shuffled(nn.Module):
    """Channels that a view divides by numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        out: Tensor = self.three(F.relu(self.two(x)))
        return out


class HardCoded(nn.Module):
    """A size as a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(F.relu(self.one(x)).view(-1, 8 * 64))
        return out


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 8)),
    "branches": (Branches, (3, 8, 8)),
    "attention": (Attention, (6, 16)),
    "shuffled": (Shuffled, (3, 8, 8)),
}
