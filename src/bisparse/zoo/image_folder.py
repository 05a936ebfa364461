"""Images in one folder per class, decoded when they are needed: ImageNet and everything laid out like it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bisparse.train.examples import Batch

__all__ = ["ImageFolder", "image_folder"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Labelled image files.

    While training: a random part of 8 to 100% of the area with an aspect ratio from 3/4 to 4/3, scaled to ``size``,
    flipped half of the time. Otherwise: the shorter side scaled to ``size * 256 / 224``, the centre cut out.

    Attributes:
        paths: of the files.
        labels: (n,) int64.
        classes: names of the folders, sorted; a label is a position in them.
        size: pixels on each side of what the network sees.

    Source: Szegedy et al., "Going deeper with convolutions", 2015 (the random part).
    """

    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    size: int = 224

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:
        """(b, 3, size, size) float32 channels-last and (b,) int64.

        Raises:
            ImportError: Pillow is missing; the message names the extra.
            OSError: a file is no image.
        """
        pixels = [_pixels(_cut(self.paths[i], self.size, generator)) for i in chosen.tolist()]
        images = torch.stack(pixels).permute(0, 3, 1, 2).float() / 255.0  # channels-last in memory
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return (images - mean) / std, self.labels[chosen]


def image_folder(folder: str | Path, *, size: int = 224) -> ImageFolder:
    """All images in a folder's subfolders, which are the classes.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder: name one with a subfolder of images for each class")
    classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise FileNotFoundError(f"{root} has no images in subfolders ({', '.join(sorted(_SUFFIXES))})")
    paths, labels = zip(*found, strict=True)
    return ImageFolder(paths, torch.tensor(labels), classes, size)


def _pixels(image: Any) -> Tensor:
    """(size, size, 3) uint8."""
    return torch.from_numpy(np.array(image))


def _cut(path: Path, size: int, generator: torch.Generator | None) -> Any:
    """The part of an image that the network sees, size x size pixels."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading images needs Pillow: pip install "bisparse[train]"') from error
    with Image.open(path) as file:
        image = file.convert("RGB")
    if generator is None:
        return image.resize((size, size), Image.Resampling.BILINEAR, box=_centre(image.size))
    cut = image.resize((size, size), Image.Resampling.BILINEAR, box=_random_box(image.size, generator))
    flip = float(torch.rand((), generator=generator)) < 0.5
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cut


def _centre(sizes: tuple[int, int]) -> tuple[float, float, float, float]:
    """The middle square with 224/256 of the shorter side."""
    width, height = sizes
    side = min(sizes) * 224.0 / 256.0
    left, top = (width - side) / 2.0, (height - side) / 2.0
    return left, top, left + side, top + side


def _random_box(sizes: tuple[int, int], generator: torch.Generator) -> tuple[float, float, float, float]:
    """A part of random area, shape and place; the middle square where ten tries do not fit."""
    width, height = sizes
    for _ in range(10):
        area, shape, x, y = torch.rand(4, generator=generator).tolist()
        area = width * height * (0.08 + 0.92 * area)
        ratio = math.exp((2.0 * shape - 1.0) * math.log(4.0 / 3.0))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = x * (width - wide), y * (height - high)
            return left, top, left + wide, top + high
    return _centre(sizes)
