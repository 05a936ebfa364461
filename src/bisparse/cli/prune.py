"""``bisparse prune``: masks for a checkpoint without its code, or for a model with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.progress import byte_bar
from bisparse.cli.show import show_report

__all__ = ["prune"]

_PATTERNS = ("2:4", "4:8", "1:4", "2:4t", "4:8t", "8:16t", "16:32t", "unstructured:0.9")
_CODE = "A model with its code (--model)"
_METHODS = ("exact", "greedy", "two_approx", "entropic", "flow")


def complete_pattern(incomplete: str) -> list[str]:
    """Patterns that a shell may offer."""
    return [text for text in _PATTERNS if text.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Methods that a shell may offer."""
    return [text for text in _METHODS if text.startswith(incomplete)]


def prune(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="IN",
            help=".safetensors, a model's folder, or .pt/.pth/.th/.bin. With --model: weights to load into it, "
            "if any.",
        ),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="What to write; its suffix chooses the kind (none: a folder).",
        ),
    ],
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern",
            "-p",
            metavar="N:M",
            help="Keep N of every M: 2:4 along the inputs, 4:8t both ways; or unstructured:0.9 (share of zeros).",
            autocompletion=complete_pattern,
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--targets",
            "-t",
            metavar="NAMES",
            help="Prune only these: whole names, globs, 're:...'. Repeatable.",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            "-i",
            metavar="NAMES",
            help="Leave these. Replaces the default (first conv, classifier, embeddings); '' leaves none. "
            "Repeatable.",
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--layout",
            "-l",
            metavar="KIND",
            help="How to read what is unclear: 'h.*.c_attn=transposed', 'experts', 'conv:32'. Repeatable.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m", metavar="NAME", help=", ".join(_METHODS) + ".", autocompletion=complete_method
        ),
    ] = "exact",
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Upper limit; default: all cores.", min=1)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace OUT once the new one is complete.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    every: Annotated[bool, typer.Option("--all", help="A line for every tensor, however many.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Progress bar; default: on a terminal.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="A model with its code: 'package.module:function', or a local Hugging Face folder.",
            rich_help_panel=_CODE,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            "-c",
            metavar="DATA",
            help="Inputs without labels: .npy, .npz, .safetensors, a text file (a sample a line), or "
            "'package.module:function'.",
            rich_help_panel=_CODE,
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="magnitude, wanda, obs or ria.", rich_help_panel=_CODE),
    ] = None,
    reconstruct: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="none, bias, least_squares, adaprune, sparsegpt or alps; '+distill' adds the last stage. "
            "Default with data: alps+distill.",
            rich_help_panel=_CODE,
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="'package.module:function' from the model to a number, reported before and after.",
            rich_help_panel=_CODE,
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Samples per batch [32].", min=1, rich_help_panel=_CODE)
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens per sample at most [512].", min=1, rich_help_panel=_CODE),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where it runs [cpu].", rich_help_panel=_CODE)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of all that is random [0].", rich_help_panel=_CODE)
    ] = None,
) -> None:
    """Prune a checkpoint by magnitude, from file to file, without its code; or a model with its code and data.

    Safetensors are streamed, so memory stays small for any size. OUT appears only when it is complete; a run
    that was stopped goes on where it stopped when you call it again. IN is never changed, unless OUT names it too.

    Try:

    - `bisparse prune model.safetensors -o sparse.safetensors -p 4:8t`

    - `bisparse prune Llama-3-8B/ -o Llama-3-8B-sparse/ -p 2:4 -i lm_head -i 're:.*embed'`

    - `bisparse prune resnet.pth -o sparse.pth -p 2:4t -t 'layer3.*' --json`

    - `bisparse prune gpt.safetensors -o out.safetensors -p 2:4 -l 'h.*.c_attn=transposed'`

    With `--model`, and inputs from `--calibration`, the weights that are left are fitted too; OUT.report.json and
    OUT.report.png say how well:

    - `bisparse prune --model Llama/ -c prompts.txt -o Llama-sparse/ -p 2:4`

    - `bisparse prune weights.pt --model nets.resnet:build -c images.npy -o sparse.safetensors -p 4:8t`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong input or options, 130 interrupted.
    """
    with clear_failures("prune", interrupted="interrupted; run the same command again to go on"):
        names = None if ignore is None else [name for name in ignore if name]
        code: dict[str, Any] = {
            "calibration": calibration,
            "scores": scores,
            "reconstruct": reconstruct,
            "evaluate": evaluate,
            "batch": batch,
            "length": length,
            "device": device,
            "seed": seed,
        }
        given = {name: value for name, value in code.items() if value is not None}
        if model is not None:
            _refuse("with --model", {"--layout": layout, "--threads": threads, "--method": method != "exact"})
            _prune_model(
                model,
                output,
                pattern,
                source,
                given | {"targets": _tuple(targets or None), "ignore": _tuple(names)},
                force=force,
                progress=progress,
                as_json=as_json,
                every=every,
            )
            return
        _refuse("without --model", {f"--{name}": True for name in given})
        if source is None:
            raise ValueError("nothing to prune: name a checkpoint, or a model by --model")
        from bisparse.files import prune_file

        with byte_bar("pruning", progress) as show:
            report = prune_file(
                source,
                output,
                pattern,
                targets=targets or None,
                ignore=names,
                method=method,
                layout=layout or None,
                force=force,
                threads=threads,
                progress=show,
            )
        show_report(report, as_json=as_json, every=every)


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _refuse(when: str, options: Mapping[str, object]) -> None:
    """Options that would have no effect are errors."""
    given = [name for name, value in options.items() if value]
    if given:
        raise ValueError(f"{', '.join(given)} has no meaning {when}: leave it out")


def _prune_model(
    model: str,
    output: Path,
    pattern: str,
    weights: Path | None,
    options: Mapping[str, Any],
    *,
    force: bool,
    progress: bool | None,
    as_json: bool,
    every: bool,
) -> None:
    from bisparse.compress.prune_model import ModelJob, prune_model

    job = ModelJob(model, pattern, None if weights is None else str(weights), **options)
    shown = sys.stderr.isatty() if progress is None else progress
    show_report(prune_model(job, output, force=force, progress=shown), as_json=as_json, every=every)
