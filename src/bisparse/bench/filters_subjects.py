"""The networks of the filter benchmark, with their data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bisparse.train.examples import DataParts, Part, hold_out, in_order
from bisparse.train.learning_rate import LearningRate
from bisparse.train.objective import CrossEntropy, Objective
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.train_options import TrainOptions
from bisparse.train.trainer import Trainer
from bisparse.zoo.cifar import cifar10_examples
from bisparse.zoo.lenet import lenet5, lenet_300_100
from bisparse.zoo.mnist import mnist
from bisparse.zoo.resnet_cifar import pretrained_resnet

__all__ = ["FilterSubject", "filter_subject"]

_LOG = logging.getLogger(__name__)
_CALIBRATION = 1024
_LENET_EPOCHS = 5


@dataclass(frozen=True, slots=True, eq=False)
class FilterSubject:
    """A trained network and its data.

    Attributes:
        model: in evaluation mode.
        data: training, held-out and test examples. Nothing is chosen by the test examples.
        precision: of its forward passes in training.
    """

    model: nn.Module
    data: DataParts
    precision: Literal["float32", "bfloat16"] = "float32"

    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """The first 1024 training images without random changes, and their labels (for Taylor scores)."""
        numbers = list(in_order(_CALIBRATION, 128))
        batches = [self.data.train.batch(chosen, None) for chosen in numbers]
        return [batch for batch in batches if isinstance(batch, tuple)]

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Percent of the test images."""
        assert self.data.test is not None
        hits, total = 0, len(self.data.test)
        for chosen in in_order(total, 500):
            batch = self.data.test.batch(chosen, None)
            assert isinstance(batch, tuple)
            hits += int((model(batch[0]).argmax(1) == batch[1]).sum())
        return 100.0 * hits / total

    def train(
        self,
        model: nn.Module,
        epochs: int,
        rate: float,
        folder: Path | None,
        seed: int = 0,
        objective: Objective | None = None,
        images: int = 0,
    ) -> None:
        """Train in place, on the first images alone if so many are named; goes on where an earlier call with the same
        folder stopped.
        """
        data = Part(self.data.train, torch.arange(images)) if images else self.data.train
        trainer = Trainer(
            model,
            DataParts(data, self.data.validation),
            TrainOptions(
                epochs=epochs,
                batch=128,
                seed=seed,
                precision=self.precision,
                channels_last=True,
                evaluate_every=epochs,
                checkpoint_every=100,
            ),
            OptimizerSpec(lr=rate, weight_decay=1e-4),
            LearningRate(shape="cosine"),
            objective or CrossEntropy(),
            output=folder,
        )
        trainer.fit(resume=True)
        model.eval()


def filter_subject(name: str, folder: Path) -> FilterSubject:
    """A network by name; LeNets are trained once (5 epochs), and kept in the folder.

    Raises:
        FileNotFoundError: data or checkpoint are not in the folder of real data.
    """
    if name.startswith("resnet"):
        train, validation = hold_out(cifar10_examples(), 1000)
        data = DataParts(train, validation, cifar10_examples("test"))
        model = pretrained_resnet(int(name[6:])).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Elsewhere bfloat16 is computed in software, many times slower.
        native = torch.cpu.get_capabilities().get("avx512_bf16", False)
        return FilterSubject(model, data, "bfloat16" if native else "float32")
    kind, _, which = name.partition("-")
    images = {"mnist": "MNIST", "fashion": "FashionMNIST"}[which]
    flat = kind == "lenet300"
    train, validation = hold_out(mnist(name=images, flat=flat), 5000)
    data = DataParts(train, validation, mnist("test", name=images, flat=flat))
    build: Callable[[], nn.Module] = lenet_300_100 if flat else lenet5
    torch.manual_seed(0)
    subject = FilterSubject(build(), data)
    path = folder / f"{name}.pt"
    if path.is_file():
        subject.model.load_state_dict(torch.load(path, weights_only=True))
    else:
        _LOG.info("training %s", name)
        subject.train(subject.model, _LENET_EPOCHS, 0.05, folder / name)
        torch.save(subject.model.state_dict(), path)
    subject.model.eval()
    return subject
