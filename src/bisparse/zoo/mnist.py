"""MNIST, and every data set in its files' format (Fashion-MNIST)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bisparse.zoo.folder import data_file
from bisparse.zoo.idx import read_idx
from bisparse.zoo.images import ImageExamples

__all__ = ["mnist"]

_STATISTICS = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}


def mnist(
    part: Literal["train", "test"] = "train",
    *,
    name: str = "MNIST",
    folder: str | Path | None = None,
    flat: bool = False,
    shift: int = 0,
) -> ImageExamples:
    """The 60 000 training or 10 000 test images of 28 x 28 pixels, 10 classes.

    Args:
        part: which.
        name: ``"MNIST"`` or ``"FashionMNIST"``: the subfolder, whose ``raw`` folder holds the official idx files.
        folder: of real data (see :func:`bisparse.zoo.folder.data_file`).
        flat: (b, 784) inputs for networks without convolutions.
        shift: random shifts of the training images by so many pixels.

    Raises:
        FileNotFoundError: the files are not in the folder.
        ValueError: a file is damaged.
    """
    prefix = "train" if part == "train" else "t10k"
    images = read_idx(data_file(f"{name}/raw/{prefix}-images-idx3-ubyte.gz", folder))
    labels = read_idx(data_file(f"{name}/raw/{prefix}-labels-idx1-ubyte.gz", folder)).long()
    mean, std = _STATISTICS.get(name, _STATISTICS["MNIST"])
    return ImageExamples(images[:, None], labels, (mean,), (std,), flat=flat, shift=shift)
