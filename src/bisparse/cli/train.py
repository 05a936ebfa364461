"""``bisparse train``: a training run from a recipe."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.show import show_report

__all__ = ["train"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A YAML file, or a name that --list shows.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="Change a key: 'optimizer.lr=0.05'. Repeatable."
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="As --set output=DIR.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", "-r", help="Go on with the run in the output folder, if there is one.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Delete the run in the output folder.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the recipes that come with bisparse.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe, with your changes, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Progress bar; default: on a terminal.")
    ] = None,
) -> None:
    """Train a model, sparse or dense, as a recipe says.

    The output folder gets checkpoints, logs (CSV, JSON lines), the sparse model, a report and its picture. A run
    that was stopped goes on with --resume, bit for bit as if it had not been. Several processes or machines:
    torchrun.

    Try:

    - `bisparse train --list`

    - `bisparse train digits-dynamic -o runs/digits`

    - `bisparse train digits-dynamic --show > mine.yaml` and edit it

    - `bisparse train mine.yaml -s pattern=2:4t -s optimizer.lr=0.05 -o runs/mine`

    - `torchrun --nproc-per-node 2 -m bisparse train digits-dynamic -o runs/two`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong recipe or options, 130 interrupted.
    """
    with clear_failures("train", interrupted="interrupted; run the same command with --resume to go on"):
        from bisparse.cli.train_bar import TrainBar
        from bisparse.recipes import load_recipe, shipped_recipes, train_recipe

        if listed:
            for name in shipped_recipes():
                typer.echo(f"{name:28} {load_recipe(name).description}")
            return
        if recipe is None:
            raise ValueError("name a recipe: a YAML file, or one that --list shows")
        plan = load_recipe(recipe, [*(changes or []), *([f"output={output}"] if output else [])])
        if show:
            typer.echo(plan.to_yaml(), nl=False)
            return
        if resume and force:
            raise ValueError("--resume goes on with a run, --force deletes it: choose one")
        bar = TrainBar(progress)
        try:
            report = train_recipe(plan, resume=resume, force=force, callbacks=[bar])
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        finally:
            bar.close()
        if os.environ.get("RANK", "0") == "0":
            show_report(report, as_json=as_json)
            if not as_json:
                typer.echo(f"everything is in {plan.output}")
