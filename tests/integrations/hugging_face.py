"""A real run of Hugging Face's Trainer on a tiny GPT-2; as a program it kills itself at a step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import bisparse as bs
from bisparse.integrations.transformers import BisparseCallback
from bisparse.train import Schedule, Sparsifier
from bisparse.weights import as_matrices, find_weights


class Tokens(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.rows = torch.randint(17, (48, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[number], "labels": self.rows[number]}


class Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class SaveEveryStep(TrainerCallback):
    """``save_pretrained`` in the middle of training gives a sparse model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checked, self.logs = folder, 0, {}

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **given: Any) -> None:
        self.logs = logs

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **given: Any) -> None:
        if state.global_step % 5 == 2:
            model.save_pretrained(self.folder)
            check_sparse(GPT2LMHeadModel.from_pretrained(self.folder))
            self.checked += 1


def check_sparse(model: torch.nn.Module) -> None:
    for weight in find_weights(model):
        kept = as_matrices(weight.parameter.detach() != 0, weight.layout)
        assert bs.verify_mask(kept, "2:4t").feasible, weight.name


def train(
    output: Path, callbacks: list[TrainerCallback], resume: bool = False
) -> tuple[Any, BisparseCallback]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=17, bos_token_id=1, eos_token_id=1, n_positions=8, n_embd=16, n_layer=1, n_head=2
        )
    )
    arguments = TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=8, num_train_epochs=4, learning_rate=0.01, save_steps=4,
        save_strategy="steps", logging_steps=4, report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        max_grad_norm=0.5, weight_decay=0.01, gradient_accumulation_steps=2,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
    )  # fmt: skip
    ours = BisparseCallback(Sparsifier("2:4t", schedule=Schedule(every=3)))
    trainer = Trainer(model, arguments, train_dataset=Tokens(), callbacks=[ours, *callbacks])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, ours


def run(output: Path, step: int | None, resume: bool) -> tuple[torch.nn.Module, Sparsifier]:
    """Train in one of several processes; it kills itself at a step."""
    trainer, ours = train(output, [] if step is None else [Kill(step)], resume)
    return trainer.model, ours.sparsifier


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), [Kill(int(sys.argv[2]))])
