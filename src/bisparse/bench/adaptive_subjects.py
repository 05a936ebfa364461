"""Data and networks of the kernel benchmark."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.zoo.cifar import cifar10
from bisparse.zoo.digits import digits
from bisparse.zoo.fit import accuracy, fit
from bisparse.zoo.folder import data_file
from bisparse.zoo.idx import read_idx
from bisparse.zoo.mlp import mlp
from bisparse.zoo.resnet_cifar import CifarResNet, pretrained_resnet
from bisparse.zoo.split import Split

__all__ = ["HIDDEN", "Subject", "load_subject", "mnist_images", "tuned_accuracy"]

HIDDEN = ("0.weight", "2.weight")
_WIDTHS = (24, 16)
_COUNT = 3000


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A data set, and the networks by seed that are made for it.

    Attributes:
        data: labelled data.
        epochs: of training; fine-tuning takes half.
    """

    data: Split
    epochs: int

    def network(self, regime: str, seed: int) -> nn.Sequential:
        """Initial weights, or weights after dense training."""
        model = mlp((self.data.train_inputs.shape[1], *_WIDTHS, self.data.classes), seed=seed)
        if regime == "trained":
            fit(model, self.data, epochs=self.epochs, learning_rate=3e-3, seed=seed)
        return model


def tuned_accuracy(
    subject: Subject, model: nn.Sequential, masks: Mapping[str, Tensor], *, regime: str, seed: int
) -> float:
    """Test accuracy after training with the masks: the whole course from initial weights, half of it otherwise."""
    student = copy.deepcopy(model)
    parameters = dict(student.named_parameters())

    @torch.no_grad()
    def mask_() -> None:
        for name, mask in masks.items():
            parameters[name].mul_(mask)

    mask_()
    epochs = subject.epochs if regime == "initial" else subject.epochs // 2
    rate = 3e-3 if regime == "initial" else 1e-3
    fit(student, subject.data, epochs=epochs, learning_rate=rate, seed=seed, after_step=mask_)
    return accuracy(student, subject.data.test_inputs, subject.data.test_labels)


def load_subject(name: str, folder: str | Path | None = None) -> Subject:
    """Read one of the benchmark's data sets.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: real data are not there.
    """
    if name == "digits":
        return Subject(digits(), 30)
    if name == "mnist":
        parts = [mnist_images(part, folder) for part in ("train", "t10k")]
        return Subject(Split(*(tensor[:_COUNT] for part in parts for tensor in part)), 20)
    if name == "cifar":
        network = pretrained_resnet(20, folder)
        parts = [cifar10(batch, _COUNT, folder) for batch in ("data_batch_1", "test_batch")]
        features = [(_stage_features(network, images), labels) for images, labels in parts]
        scale = features[0][0].std(0)
        return Subject(Split(*(t for x, labels in features for t in (x / scale, labels))), 16)
    raise ValueError(f"data={name!r}: use digits, mnist or cifar")


def mnist_images(part: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """All images of ``train`` or ``t10k`` as 12 x 12 pixels around 0 (the border of 2 is cut off), and labels."""
    images = read_idx(data_file(f"MNIST/raw/{part}-images-idx3-ubyte.gz", folder))
    labels = read_idx(data_file(f"MNIST/raw/{part}-labels-idx1-ubyte.gz", folder))
    small = F.avg_pool2d(images[:, None, 2:26, 2:26].float() / 255.0, 2).flatten(1)
    return small - 0.5, labels.long()


@torch.no_grad()
def _stage_features(network: CifarResNet, images: Tensor) -> Tensor:
    """The second stage's 32 channels, averaged over the four quarters of the image: (n, 128), half-way features."""
    pieces = []
    for part in torch.split(images, 250):
        out = F.relu(network.bn1(network.conv1(part)))
        pieces.append(F.adaptive_avg_pool2d(network.layer2(network.layer1(out)), 2).flatten(1))
    return torch.cat(pieces)
