"""CIFAR-10 images, from the numpy form of the official batches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bisparse.zoo.folder import data_file
from bisparse.zoo.images import ImageExamples

__all__ = ["cifar10", "cifar10_examples"]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def cifar10(
    batch: str = "test_batch", count: int | None = None, folder: str | Path | None = None
) -> tuple[Tensor, Tensor]:
    """The first images and labels of one official batch, normalised as the zoo's networks expect.

    Args:
        batch: ``"data_batch_1"``, ``"data_batch_2"`` or ``"test_batch"``.
        count: how many; ``None`` = all 10 000.
        folder: folder of real data (see :func:`bisparse.zoo.folder.data_file`).

    Returns:
        (n, 3, 32, 32) float32 images and (n,) int64 labels.

    Raises:
        FileNotFoundError: the batch is not in the folder.
    """
    data, labels = _read(batch, folder)
    images = data[:count].float() / 255.0
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images - mean) / std, labels[:count]


def cifar10_examples(
    part: Literal["train", "test"] = "train", *, folder: str | Path | None = None, augment: bool = True
) -> ImageExamples:
    """All training batches that the folder holds (of five), or the test batch, as bytes.

    Args:
        part: which.
        folder: folder of real data.
        augment: shifts by up to 4 pixels and left-right flips where a training loop asks for random changes.

    Raises:
        FileNotFoundError: no batch is in the folder.
    """
    names = [f"data_batch_{number}" for number in range(1, 6)] if part == "train" else ["test_batch"]
    first = data_file(f"cifar-10-batches-npz/{names[0]}.npz", folder)
    present = [_read(name, folder) for name in names if first.with_name(f"{name}.npz").is_file()]
    images, labels = (torch.cat(pieces) for pieces in zip(*present, strict=True))
    return ImageExamples(images, labels, _MEAN, _STD, shift=4 if augment else 0, flip=augment)


def _read(batch: str, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    """(10 000, 3, 32, 32) uint8 and (10 000,) int64."""
    with np.load(data_file(f"cifar-10-batches-npz/{batch}.npz", folder)) as content:
        images = torch.from_numpy(content["data"]).reshape(-1, 3, 32, 32)
        return images, torch.from_numpy(content["labels"]).long()
