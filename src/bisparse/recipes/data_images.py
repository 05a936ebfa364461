"""Sections of a recipe that name labelled images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bisparse.recipes.base import Section
from bisparse.train.examples import DataParts, Pairs, hold_out

__all__ = ["Cifar10Data", "DigitsData", "FolderData", "MnistData"]


class DigitsData(Section):
    """Scikit-learn's digits, 8 x 8 pixels, built in: 1797 images, a quarter of them for testing."""

    name: Literal["digits"]
    held_out: int = Field(default=150, ge=1, description="training examples held out for validation")

    def load(self) -> DataParts:
        """Read and divide; the divisions do not depend on the recipe's seed."""
        from bisparse.zoo.digits import digits

        split = digits()
        train, validation = hold_out(Pairs(split.train_inputs, split.train_labels), self.held_out)
        return DataParts(train, validation, Pairs(split.test_inputs, split.test_labels))


class MnistData(Section):
    """MNIST or Fashion-MNIST from their idx files."""

    name: Literal["mnist", "fashion-mnist"]
    folder: str | None = Field(default=None, description="folder of real data; default: BISPARSE_DATA")
    held_out: int = Field(default=5000, ge=1)
    flat: bool = False
    shift: int = Field(default=0, ge=0, description="random shifts by so many pixels")

    def load(self) -> DataParts:
        """Read and divide."""
        from bisparse.zoo.mnist import mnist

        name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[self.name]
        whole = mnist("train", name=name, folder=self.folder, flat=self.flat, shift=self.shift)
        test = mnist("test", name=name, folder=self.folder, flat=self.flat)
        return DataParts(*hold_out(whole, self.held_out), test)


class Cifar10Data(Section):
    """CIFAR-10: as many of the five training batches as there are."""

    name: Literal["cifar10"]
    folder: str | None = Field(default=None, description="folder of real data; default: BISPARSE_DATA")
    held_out: int = Field(default=1000, ge=1)
    augment: bool = Field(default=True, description="random shifts by up to 4 pixels, and flips")

    def load(self) -> DataParts:
        """Read and divide."""
        from bisparse.zoo.cifar import cifar10_examples

        whole = cifar10_examples("train", folder=self.folder, augment=self.augment)
        test = cifar10_examples("test", folder=self.folder)
        return DataParts(*hold_out(whole, self.held_out), test)


class FolderData(Section):
    """Image files in one folder per class: ``train/<class>/*.jpg`` and ``val/<class>/*.jpg``, as ImageNet."""

    name: Literal["image-folder"]
    folder: str
    train: str = "train"
    test: str | None = Field(
        default="val", description="subfolder that is looked at only at the end; null = none"
    )
    size: int = Field(default=224, ge=1)
    held_out: int = Field(default=10000, ge=1)

    def load(self) -> DataParts:
        """List the files and divide them."""
        from pathlib import Path

        from bisparse.zoo.image_folder import image_folder

        root = Path(self.folder)
        train, validation = hold_out(image_folder(root / self.train, size=self.size), self.held_out)
        test = None if self.test is None else image_folder(root / self.test, size=self.size)
        return DataParts(train, validation, test)
