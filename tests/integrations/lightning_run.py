"""A real run of Lightning's Trainer; as a program it kills itself at a step."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from bisparse.integrations.lightning import BisparseCallback
from bisparse.train import Schedule, Sparsifier


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        inputs, labels = batch
        torch.manual_seed(self.global_step)  # Lightning's checkpoints hold no state of random generators
        return nn.functional.cross_entropy(self.head(self.body(inputs)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *given: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    output: Path, callbacks: list[Callback], resume: Path | None = None, **options: Any
) -> tuple[Net, BisparseCallback]:
    warnings.simplefilter("ignore")
    pl.seed_everything(0, verbose=False)
    module = Net()
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(inputs, torch.arange(64) % 4)
    ours = BisparseCallback(Sparsifier("2:4t", schedule=Schedule(every=3)))
    saving = ModelCheckpoint(output, filename="{epoch}", save_top_k=-1)
    trainer = pl.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ours, saving, *callbacks], gradient_clip_val=1.0, **options,
    )  # fmt: skip
    pl.seed_everything(1, verbose=False)
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    trainer.fit(module, loader, ckpt_path=None if resume is None else str(resume))
    return module, ours


def run(output: Path, step: int | None, resume: bool) -> tuple[nn.Module, Sparsifier]:
    """Train in one of two processes; it kills itself at a step."""
    checkpoint = output / "epoch=1.ckpt" if resume else None
    kills = [] if step is None else [Kill(step)]
    module, ours = train(output, kills, checkpoint, strategy="ddp", devices=2)
    return module, ours.sparsifier


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), [Kill(int(sys.argv[2]))])
