"""``bisparse prune``: masks for a checkpoint, without its code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.progress import byte_bar
from bisparse.cli.show import show_report

__all__ = ["prune"]

_PATTERNS = ("2:4", "4:8", "1:4", "2:4t", "4:8t", "8:16t", "16:32t", "unstructured:0.9")
_METHODS = ("exact", "greedy", "two_approx", "entropic", "flow")


def complete_pattern(incomplete: str) -> list[str]:
    """Patterns that a shell may offer."""
    return [text for text in _PATTERNS if text.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Methods that a shell may offer."""
    return [text for text in _METHODS if text.startswith(incomplete)]


def prune(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=".safetensors, a model's folder, or .pt/.pth/.th/.bin.")
    ],
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
) -> None:
    """Prune a checkpoint by magnitude, from file to file, without its code.

    Safetensors are streamed, so memory stays small for any size. OUT appears only when it is complete; a run
    that was stopped goes on where it stopped when you call it again. IN is never changed, unless OUT names it too.

    Try:

    - `bisparse prune model.safetensors -o sparse.safetensors -p 4:8t`

    - `bisparse prune Llama-3-8B/ -o Llama-3-8B-sparse/ -p 2:4 -i lm_head -i 're:.*embed'`

    - `bisparse prune resnet.pth -o sparse.pth -p 2:4t -t 'layer3.*' --json`

    - `bisparse prune gpt.safetensors -o out.safetensors -p 2:4 -l 'h.*.c_attn=transposed'`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong input or options, 130 interrupted.
    """
    with clear_failures("prune", interrupted="interrupted; run the same command again to go on"):
        from bisparse.files import prune_file

        with byte_bar("pruning", progress) as show:
            report = prune_file(
                source,
                output,
                pattern,
                targets=targets or None,
                ignore=None if ignore is None else [name for name in ignore if name],
                method=method,
                layout=layout or None,
                force=force,
                threads=threads,
                progress=show,
            )
        show_report(report, as_json=as_json, every=every)
