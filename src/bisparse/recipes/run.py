"""From a recipe to a trained model: build everything, train, write the results."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from bisparse.pattern import parse_pattern
from bisparse.recipes.errors import RecipeError
from bisparse.recipes.evolution import EvolutionChoice
from bisparse.recipes.output import claim_output, write_results
from bisparse.recipes.recipe import Recipe
from bisparse.timing import torch_threads
from bisparse.train.callback import Callback
from bisparse.train.examples import Batch
from bisparse.train.hidden_hints import KeptIndices
from bisparse.train.objective import CrossEntropy, Objective, own_loss
from bisparse.train.processes import Processes, joined
from bisparse.train.run_log import RunLog
from bisparse.train.sparse_layers import sparse_layers
from bisparse.train.sparsifier import Sparsifier
from bisparse.train.tensorboard import TensorBoardLog
from bisparse.train.train_options import TrainOptions
from bisparse.train.train_report import TrainReport
from bisparse.train.trainer import Trainer
from bisparse.weights import PatternChoice

__all__ = ["make_sparsifier", "make_trainer", "train_recipe"]


def train_recipe(
    recipe: Recipe, *, resume: bool = False, force: bool = False, callbacks: Sequence[Callback] = ()
) -> TrainReport:
    """Train as the recipe says; its ``output`` folder then holds everything.

    ``recipe.yaml``, ``checkpoint.pt``, ``metrics.jsonl``, ``metrics.csv``, ``model.safetensors`` (or a ``model``
    folder, for models that have ``save_pretrained``), ``report.json``, and ``report.png`` where matplotlib is there.

    Args:
        recipe: what to do.
        resume: go on where a stopped run of the same recipe is; a finished one is trained no further.
        force: delete what is in the folder.
        callbacks: told what happens, besides the recipe's own logs.

    Raises:
        RecipeError: the recipe cannot be followed, the folder holds another run, or a model does not fit its data.
        FileNotFoundError: data are missing.
    """
    output = Path(recipe.output)
    threads = nullcontext() if recipe.loop.threads is None else torch_threads(recipe.loop.threads)
    with threads, joined(recipe.loop.device) as processes:
        own: list[Callback] = [RunLog(output, every=recipe.loop.log_every)]
        if recipe.loop.tensorboard:
            own.append(TensorBoardLog(output / "tensorboard", every=recipe.loop.log_every))
        trainer = make_trainer(recipe, processes, [*own, *callbacks])
        if processes.first:
            claim_output(output, recipe, resume=resume, force=force)
        processes.wait()
        report = trainer.fit(resume=resume)
        if processes.first:
            write_results(output, trainer.model, report)
        processes.wait()
        return report


def make_trainer(recipe: Recipe, processes: Processes, callbacks: Sequence[Callback] = ()) -> Trainer:
    """The trainer of a recipe, ready to ``fit``; nothing is written yet."""
    data = recipe.data.load()
    loop = recipe.loop
    options = TrainOptions(
        epochs=recipe.epochs,
        batch=recipe.batch,
        seed=recipe.seed,
        **loop.model_dump(exclude={"label_smoothing", "threads", "device", "log_every", "tensorboard"}),
    )
    sample = data.validation.batch(torch.zeros(1, dtype=torch.long), None)
    if recipe.distillation is not None:
        recipe.distillation.check(sample)
    model = recipe.model.build(recipe.seed)
    teacher = None if recipe.distillation is None else copy.deepcopy(model).eval()
    kept: KeptIndices = {}
    if recipe.filters is not None:
        plan_file = recipe.filters.remove(model, data.train, recipe.seed)
        callbacks, kept = [*callbacks, plan_file], plan_file.plan.kept
    if recipe.evolution is not None:
        callbacks = [*_evolution(recipe.evolution, model), *callbacks]
    steps = max(min(len(data.train) // recipe.batch, loop.steps_per_epoch or 10**12), 1)
    return Trainer(
        model,
        data,
        options,
        recipe.optimizer.spec(),
        recipe.learning_rate.in_steps(steps),
        _objective(recipe, sample, None if teacher is None else teacher.to(processes.device), kept),
        make_sparsifier(recipe, steps * recipe.epochs),
        callbacks,
        Path(recipe.output),
        processes,
    )


def _evolution(section: EvolutionChoice, model: nn.Module) -> list[Callback]:
    if not sparse_layers(model):
        raise RecipeError(
            "evolution: the model has no truly sparse layers; name sparse-mlp, or use pattern and topology"
        )
    return section.callbacks()


def make_sparsifier(recipe: Recipe, steps: int) -> Sparsifier | None:
    """The sparsifier of a recipe, not yet prepared; ``None`` for dense training.

    Args:
        recipe: what to do.
        steps: of the whole run.
    """
    if recipe.pattern is None:
        return None
    pattern: PatternChoice = (
        recipe.pattern
        if isinstance(recipe.pattern, str)
        else {selector: parse_pattern(text) for selector, text in recipe.pattern.items()}
    )
    return Sparsifier(
        pattern,
        rule=None if recipe.rule is None else recipe.rule.build(),
        schedule=recipe.schedule.build(steps),
        topology=None if recipe.topology is None else recipe.topology.build(recipe.seed),
        allocation=None if recipe.allocation is None else recipe.allocation.build(),
        targets=recipe.targets,
        ignore=recipe.ignore,
    )


def _objective(recipe: Recipe, sample: Batch, teacher: nn.Module | None, kept: KeptIndices) -> Objective:
    """Pairs are classified; mappings are the arguments of models that return their own loss."""
    if recipe.distillation is not None and teacher is not None:
        return recipe.distillation.objective(teacher, kept)
    return CrossEntropy(recipe.loop.label_smoothing) if isinstance(sample, tuple) else own_loss
