"""A plain training loop: seeded, resumable bit for bit, on one process or several."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from bisparse.train.callback import Callback, LogRow
from bisparse.train.evaluation import Totals, evaluate
from bisparse.train.examples import Batch, DataParts, shuffled
from bisparse.train.joint_model import joint_model
from bisparse.train.learning_rate import LearningRate
from bisparse.train.loading import Request, load, moved
from bisparse.train.mask_check import MaskCheck, check_masks
from bisparse.train.objective import CrossEntropy, Objective
from bisparse.train.optimizers import OptimizerSpec
from bisparse.train.processes import Processes
from bisparse.train.run_state import load_run_state, save_run_state
from bisparse.train.sparse_layers import sparse_layers
from bisparse.train.train_options import TrainOptions
from bisparse.train.train_report import TrainReport

if TYPE_CHECKING:
    from bisparse.train.sparsifier import Sparsifier

__all__ = ["Trainer"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(eq=False)
class Trainer:
    """Trains a model, with or without a sparsifier, and reports.

    Every random number of a step depends on (seed, step, process) only. A checkpoint therefore needs no state of
    random generators, and a run that was killed goes on bit for bit as if it had not been.

    Attributes:
        model: trained in place; under ``torchrun`` every process has its own copy, equal at the start.
        data: training, held-out and test examples.
        options: how long and how.
        optimizer: name and numbers.
        learning_rate: its course, in steps.
        objective: what is minimised.
        sparsifier: not yet prepared; ``None`` = dense training.
        callbacks: told what happens.
        output: folder of ``checkpoint.pt``; ``None`` = no checkpoints.
        processes: those that train together (see :func:`bisparse.train.processes.joined`).
        step: optimizer steps done.
        seconds: spent in them; evaluations and checkpoints are not counted.
        rows: of every epoch so far: losses, accuracies, learning rate, the sparsifier's measures.
    """

    model: nn.Module
    data: DataParts
    options: TrainOptions
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    learning_rate: LearningRate = field(default_factory=LearningRate)
    objective: Objective = field(default_factory=CrossEntropy)
    sparsifier: Sparsifier | None = None
    callbacks: Sequence[Callback] = ()
    output: Path | None = None
    processes: Processes = field(default_factory=Processes)
    step: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    rows: list[LogRow] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # A text would only fail when the first epoch is stored.
        self.output = None if self.output is None else Path(self.output)

    def fit(self, *, resume: bool = False) -> TrainReport:
        """Train to the end, then look at the test data once.

        Args:
            resume: go on from the checkpoint in ``output``, if there is one.

        Returns:
            What came out. The model is left in evaluation mode, with masks applied and no hooks.

        Raises:
            ValueError: the batch does not divide among processes and parts, or the data do not fill one batch.
        """
        self._prepare()
        if resume and self.output is not None and (path := self.output / "checkpoint.pt").is_file():
            self._load(load_run_state(path))
        self.wrap()
        for callback in self.callbacks:
            callback.on_start(self)
        while self.step < self.total_steps:
            self._epoch()
        return self._finish()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        steps = len(self.data.train) // self.options.batch
        return min(steps, self.options.steps_per_epoch or steps)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.options.epochs * self.steps_per_epoch

    @property
    def built_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer with its parameters and state, from the start of training on."""
        return self._optimizer

    def evaluate(self, part: Literal["validation", "test"] = "validation") -> Totals | None:
        """Loss and accuracy on held-out or test examples; ``None`` where there are no test examples."""
        examples = self.data.validation if part == "validation" else self.data.test
        if examples is None:
            return None
        # Called without its wrappers: processes may have different numbers of batches, and there is nothing to compile.
        batch = self.options.evaluation_batch
        return evaluate(self.model, examples, self.objective, batch, self.processes, self._precision)

    def _prepare(self) -> None:
        options, processes = self.options, self.processes
        if options.batch % (processes.world * options.accumulate):
            raise ValueError(
                f"batch={options.batch} does not divide into {processes.world} process(es) times "
                f"{options.accumulate} accumulated part(s): choose a multiple"
            )
        shuffled(len(self.data.train), options.batch, options.seed, 0)
        self.model.to(processes.device)
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = self.optimizer.build(self.model)
        if self.sparsifier is not None:
            self.sparsifier.prepare(self.model, self._optimizer)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._runner = self._joint = self.model
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=options.precision == "float16")
        self._running = Totals()

    def wrap(self) -> None:
        """Wrap the model for processes and the compiler: at the start, and when a parameter has changed its size."""
        self._runner = self._joint = self.model
        gc.collect()  # the old wrapper remembers the old sizes
        self._joint = joint_model(self.model, self.processes)
        self._runner = torch.compile(self._joint) if self.options.compile else self._joint  # type: ignore[assignment]

    def _precision(self) -> Any:
        dtype = _DTYPES.get(self.options.precision)
        return nullcontext() if dtype is None else torch.autocast(self.processes.device.type, dtype)

    def _epoch(self) -> None:
        epoch, done = divmod(self.step, self.steps_per_epoch)
        order = shuffled(len(self.data.train), self.options.batch, self.options.seed, epoch)
        requests = self._requests(order[: self.steps_per_epoch], done)
        parts: list[Batch] = []
        started = time.perf_counter()
        self._runner.train()
        for part in load(self.data.train, requests, self.options.workers):
            parts.append(part)
            if len(parts) < self.options.accumulate:
                continue
            row = self._step(parts, epoch)
            self.seconds += time.perf_counter() - started
            parts = []
            self._after_step(row)
            started = time.perf_counter()
        self._end_epoch(epoch + 1)

    def _after_step(self, row: LogRow) -> None:
        """Tell, and save where a checkpoint is due inside an epoch."""
        for callback in self.callbacks:
            callback.on_step(self, row)
        every = self.options.checkpoint_every
        if every and self.step % every == 0 and self.step % self.steps_per_epoch:
            self._save()

    def _requests(self, order: Sequence[Tensor], done: int) -> list[Request]:
        """What this process loads in the rest of an epoch, part by part."""
        share = self.options.batch // self.processes.world
        begin = self.processes.rank * share
        return [
            Request(part, self._seed(self.step + index, number))
            for index, chosen in enumerate(order[done:])
            for number, part in enumerate(chosen[begin : begin + share].chunk(self.options.accumulate))
        ]

    def _seed(self, step: int, part: int) -> int:
        """A seed of its own for every step, process and part."""
        number = (step * self.options.accumulate + part) * self.processes.world + self.processes.rank
        return ((self.options.seed + 1) * 2**40 + number) % 2**64

    def _step(self, parts: Sequence[Batch], epoch: int) -> dict[str, str | int | float | None]:
        """One optimizer step on the accumulated parts."""
        factor = self.learning_rate.factor(self.step, self.total_steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        totals = Totals()
        for number, part in enumerate(parts):
            torch.manual_seed(self._seed(self.step, number))  # of dropout
            last = number == len(parts) - 1
            with nullcontext() if last or self._joint is self.model else self._joint.no_sync():  # type: ignore[operator]
                with self._precision():
                    outcome = self.objective(self._runner, moved(part, self.processes.device))
                self._scaler.scale(outcome.loss / len(parts)).backward()  # type: ignore[no-untyped-call]
            totals += Totals.of(outcome)
        if self.options.clip is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self.step += 1
        self._running += totals
        return {"step": self.step, "epoch": epoch, **totals.row(), "lr": self._rates[0] * factor}

    def _end_epoch(self, epoch: int) -> None:
        """Evaluate, tell, save."""
        row: dict[str, str | int | float | None] = {"step": self.step, "epoch": epoch}
        row |= self._running.over(self.processes).row()
        if epoch % self.options.evaluate_every == 0 or self.step == self.total_steps:
            held_out = self.evaluate()
            assert held_out is not None
            row |= held_out.row("validation_")
        row |= {"lr": self._optimizer.param_groups[0]["lr"], "seconds": round(self.seconds, 3)}
        if self.sparsifier is not None:
            row |= {name: value for name, value in self.sparsifier.metrics().items() if _is_number(value)}
        if layers := sparse_layers(self.model):
            row["connections"] = sum(layer.connections for layer in layers)
        self._running = Totals()
        self.rows.append(row)
        for callback in self.callbacks:
            callback.on_epoch(self, row)
        self._save()

    def _save(self) -> None:
        sparsifier = None if self.sparsifier is None else self.sparsifier.state_dict()
        running = self._running.over(self.processes)
        if self.output is None or not self.processes.first:
            return
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "sparsifier": sparsifier,
            "callbacks": {name: callback.state_dict() for name, callback in self._named_callbacks()},
            "running": running.as_tuple(),
            "seconds": self.seconds,
            "rows": self.rows,
        }
        self.output.mkdir(parents=True, exist_ok=True)
        save_run_state(self.output / "checkpoint.pt", state)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.sparsifier is not None:
            self.sparsifier.load_state_dict(state["sparsifier"])
        for name, callback in self._named_callbacks():
            callback.load_state_dict(state["callbacks"].get(name, {}))
        self.step, self.seconds, self.rows = state["step"], state["seconds"], list(state["rows"])
        self._running = Totals(*state["running"]) if self.processes.first else Totals()

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        """Callbacks by class and number, so that a resumed run may have fewer or more of them."""
        kinds = [type(callback).__name__ for callback in self.callbacks]
        names = [f"{kind} {kinds[:index].count(kind)}" for index, kind in enumerate(kinds)]
        return list(zip(names, self.callbacks, strict=True))

    def _finish(self) -> TrainReport:
        measures: Mapping[str, Any] = {}
        masks: tuple[MaskCheck, ...] = ()
        if self.sparsifier is not None:
            at_most = self.sparsifier.topology.at_most
            measures, masks = self.sparsifier.metrics(), check_masks(self.sparsifier.weights, at_most=at_most)
            self.sparsifier.squash_mask()
        self.model.eval()
        report = TrainReport.of(self, self.evaluate(), self.evaluate("test"), measures, masks)
        for callback in self.callbacks:
            callback.on_end(self, report)
        return report


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
