"""Residual networks for CIFAR-10, with the parameter names of Idelbayev's pretrained checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.zoo.folder import data_file

__all__ = ["CifarResNet", "pretrained_resnet", "resnet_cifar"]

_CHECKPOINTS = {20: "resnet20-12fca82f.th", 32: "resnet32-d509ac18.th"}


class _Shortcut(nn.Module):
    """Without parameters (option A of the paper): stride by slicing, new channels zero.

    The numbers of new channels are attributes, so that they can change when filters are removed.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.channels_front = self.channels_back = new_channels // 2
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, in + new, h / stride, w / stride)."""
        sampled = x[:, :, :: self._stride, :: self._stride]
        return F.pad(sampled, (0, 0, 0, 0, self.channels_front, self.channels_back))


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = width == width_in
        self.shortcut = nn.Identity() if same else _Shortcut(width - width_in, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, width, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3x3 stem of 16 channels, three stages of 16, 32 and 64 channels, global average pooling, a
    classifier.
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = _Block(width_in, width, stride)
        return nn.Sequential(first, *(_Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, classes) logits."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def resnet_cifar(depth: int = 20) -> CifarResNet:
    """An untrained network of 6 n + 2 layers.

    Raises:
        ValueError: another depth.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth={depth}: must be 6 n + 2, for example 20 or 32")
    return CifarResNet((depth - 2) // 6)


def pretrained_resnet(depth: int = 20, folder: str | Path | None = None) -> CifarResNet:
    """ResNet-20 (91.73% on the test images) or ResNet-32 (92.63%), in evaluation mode.

    Raises:
        FileNotFoundError: the checkpoint is not in the folder of real data.
        ValueError: no checkpoint of that depth.

    Source: Y. Idelbayev, "Proper ResNet Implementation for CIFAR10/CIFAR100 in PyTorch".
    """
    if depth not in _CHECKPOINTS:
        raise ValueError(f"depth={depth}: checkpoints exist for {', '.join(map(str, _CHECKPOINTS))}")
    path = data_file(f"resnet_cifar10/{_CHECKPOINTS[depth]}", folder)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = resnet_cifar(depth)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return network.eval()
