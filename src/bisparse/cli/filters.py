"""``bisparse filters``: remove filters, heads and hidden units of a model, really."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.show import show_report

__all__ = ["filters"]


def filters(
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="CODE", help="'package.module:function', or a local Hugging Face folder."
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            "-b",
            metavar="WHAT:SHARE",
            help="What may remain: params:0.6, flops:0.5, or latency:0.5 (measured here).",
        ),
    ],
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            "-c",
            metavar="DATA",
            help="Inputs without labels: .npy, .npz, .safetensors, a text file, or 'package.module:function'.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Checkpoint to write: .safetensors or .pt.")
    ],
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", metavar="IN", help="Checkpoint to load into the model first."),
    ] = None,
    then: Annotated[
        str | None,
        typer.Option(metavar="N:M", help="A pattern for what is left, e.g. 2:4; widths fit its blocks."),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--targets", "-t", metavar="NAMES", help="Only outputs of these. Repeatable."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", "-i", metavar="NAMES", help="Keep all outputs of these. Repeatable."),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="'package.module:function' from the model to a number."),
    ] = None,
    scores: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="pfp, obs (the best accuracy); to compare: l1, l2, random.",
        ),
    ] = "pfp",
    selection: Annotated[str, typer.Option(metavar="NAME", help="top, random or hybrid.")] = "top",
    allocation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="eps, error, uniform or global; default: eps for pfp, error for obs."
        ),
    ] = None,
    reconstruct: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="rescale (pfp), least_squares (obs; fits what is left to the data), bias or none (the others); "
            "'+distill' adds a last stage.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="That decide; default: the paper's formula.", min=2)
    ] = None,
    multiple: Annotated[
        int | None, typer.Option(metavar="N", help="Round widths up to a multiple.", min=1)
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency/--no-latency", help="Measure the time of a call before and after.")
    ] = True,
    batch: Annotated[int, typer.Option(metavar="N", help="Samples per batch.", min=1)] = 32,
    length: Annotated[int, typer.Option(metavar="N", help="Tokens per sample at most.", min=1)] = 512,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where it runs.")] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Of random choices.", min=0)] = 0,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace OUT once the new one is complete.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    every: Annotated[bool, typer.Option("--all", help="A line for every family, however many.")] = False,
) -> None:
    """Remove filters, attention heads and hidden units until a budget is met; the result is an ordinary smaller model.

    Channels that hang together (residual sums, concatenations, groups, norms) go together. OUT gets the smaller
    weights, OUT.plan.json what was kept: `bisparse.filters.apply_plan_(build(), load_plan(...))` makes a freshly built
    model fit. OUT.report.json and OUT.report.png say what was removed and what is proven about it.

    Try:

    - `bisparse filters --model nets.resnet:build -w resnet.pt -c images.npy -b params:0.6 -o small.safetensors`

    - `bisparse filters --model nets:build -c images.npy -b flops:0.5 --scores obs -o small.pt`

    - `bisparse filters --model nets:build -c nets:batches -b params:0.7 --then 2:4 -o small.pt`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong input or options, 130 interrupted.
    """
    with clear_failures("filters"):
        from bisparse.filters.model_job import FilterModelJob, prune_model_filters

        options = {
            "scores": scores,
            "selection": selection,
            "allocation": allocation,
            "reconstruct": reconstruct,
            "samples": samples,
            "seed": seed,
            "latency": latency,
        } | ({} if multiple is None else {"multiple": multiple})
        job = FilterModelJob(
            model,
            budget,
            calibration,
            weights,
            evaluate,
            tuple(targets) if targets else None,
            tuple(ignore) if ignore else None,
            then,
            batch,
            length,
            device,
            options,
        )
        show_report(prune_model_filters(job, output, force=force), as_json=as_json, every=every)
