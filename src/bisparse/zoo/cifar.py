"""CIFAR-10 images, from the numpy form of the official batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bisparse.zoo.folder import data_file

__all__ = ["cifar10"]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def cifar10(
    batch: str = "test_batch", count: int | None = None, folder: str | Path | None = None
) -> tuple[Tensor, Tensor]:
    """The first images and labels of one official batch, normalised as the zoo's networks expect.

    Args:
        batch: ``"data_batch_1"``, ``"data_batch_2"`` or ``"test_batch"``.
        count: how many; ``None`` = all 10 000.
        folder: folder of real data (see :func:`bisparse.zoo.data_file`).

    Returns:
        (n, 3, 32, 32) float32 images and (n,) int64 labels.

    Raises:
        FileNotFoundError: the batch is not in the folder.
    """
    with np.load(data_file(f"cifar-10-batches-npz/{batch}.npz", folder)) as content:
        data, labels = content["data"][:count], content["labels"][:count]
    images = torch.from_numpy(data).reshape(-1, 3, 32, 32).float() / 255.0
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images - mean) / std, torch.from_numpy(labels).long()
