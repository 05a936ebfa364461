"""Images kept as bytes and normalised batch by batch, with random shifts and flips on request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from bisparse.train.examples import Batch

__all__ = ["ImageExamples"]


@dataclass(frozen=True)
class ImageExamples:
    """Labelled images in memory.

    Attributes:
        images: (n, channels, height, width) uint8.
        labels: (n,) int64.
        mean: per channel, of pixels divided by 255.
        std: likewise.
        shift: random crops after padding by so many zeros on every side.
        flip: random left-right flips.
        flat: (b, channels * height * width) instead of (b, channels, height, width).
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift: int = 0
    flip: bool = False
    flat: bool = False

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(
                f"images must be (n, c, h, w) uint8, got {tuple(self.images.shape)} {self.images.dtype}"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels: give one for each")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _padded(self) -> Tensor:
        """Images with their border, made once."""
        return F.pad(self.images, (self.shift,) * 4)

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:
        """(b, c, h, w) float32 channels-last (or flat) and (b,) int64; random changes only with a generator."""
        images = self.images[chosen] if generator is None else self._changed(chosen, generator)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        inputs = (images.to(memory_format=torch.channels_last).float() / 255.0 - mean) / std
        return inputs.flatten(1) if self.flat else inputs, self.labels[chosen]

    def _changed(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        count, (_, _, height, width) = len(chosen), self.images.shape
        images = self.images[chosen]
        if self.shift:
            corners = torch.randint(2 * self.shift + 1, (count, 2), generator=generator).tolist()
            padded = self._padded
            images = torch.stack(
                [
                    padded[number, :, top : top + height, left : left + width]
                    for number, (top, left) in zip(chosen.tolist(), corners, strict=True)
                ]
            )
        if self.flip:
            flipped = torch.rand(count, generator=generator) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        return images
