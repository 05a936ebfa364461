"""``bisparse pack`` and ``bisparse unpack``: sparse checkpoints made smaller on the disk, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.progress import byte_bar
from bisparse.cli.prune import complete_pattern
from bisparse.cli.show import show_report

__all__ = ["pack", "unpack"]

_AGAIN = "interrupted; run the same command again to go on"
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help=".safetensors, or a folder (no suffix).")
]
_Threads = Annotated[int | None, typer.Option(metavar="N", help="Upper limit; default: all cores.", min=1)]
_Force = Annotated[bool, typer.Option("--force", "-f", help="Replace OUT once the new one is complete.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
_All = Annotated[bool, typer.Option("--all", help="A line for every tensor, however many.")]
_Progress = Annotated[
    bool | None, typer.Option("--progress/--no-progress", help="Progress bar; default: on a terminal.")
]


def pack(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=".safetensors, a model's folder, or .pt/.pth/.th/.bin.")
    ],
    output: _Output,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            "-p",
            metavar="N:M",
            help="Consider only this one; default: whatever is smallest for each tensor.",
            autocompletion=complete_pattern,
        ),
    ] = None,
    signed_zeros: Annotated[
        bool,
        typer.Option(
            "--signed-zeros/--drop-zero-signs",
            help="Keep the signs of negative zeros, so that every bit comes back.",
        ),
    ] = True,
    threads: _Threads = None,
    force: _Force = False,
    as_json: _Json = False,
    every: _All = False,
    progress: _Progress = None,
) -> None:
    """Store every sparse weight as its kept values and a compact index; the rest stays as it is.

    The output is an ordinary safetensors file (docs/packed.md describes it). 50% patterns take 0.56 of the
    dense size with 16-bit numbers, 0.53 with 32, 0.61 with 8; unstructured zeros are packed, too. Every bit
    comes back with `bisparse unpack` or `bisparse.load_packed`, and `bisparse inspect` and `bisparse prune`
    read packed files as they are.

    Try:

    - `bisparse prune model.safetensors -o sparse.safetensors -p 4:8t`

    - `bisparse pack sparse.safetensors -o packed.safetensors`

    - `bisparse pack Llama-3-8B-sparse/ -o Llama-3-8B-packed/`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong input or options, 130
    interrupted.
    """
    with clear_failures("pack", interrupted=_AGAIN):
        from bisparse.files import pack_file

        with byte_bar("packing", progress) as show:
            report = pack_file(
                source,
                output,
                pattern=pattern,
                signed_zeros=signed_zeros,
                force=force,
                threads=threads,
                progress=show,
            )
        show_report(report, as_json=as_json, every=every)


def unpack(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A packed .safetensors file or folder.")],
    output: _Output,
    threads: _Threads = None,
    force: _Force = False,
    as_json: _Json = False,
    every: _All = False,
    progress: _Progress = None,
) -> None:
    """Write a packed checkpoint as an ordinary one: dense tensors with zeros, the same bits as before
    packing.

    Try:

    - `bisparse unpack packed.safetensors -o sparse.safetensors`

    Exit codes: 0 done, 1 the disk is full or a fault of the program, 2 wrong input or options, 130
    interrupted.
    """
    with clear_failures("unpack", interrupted=_AGAIN):
        from bisparse.files import unpack_file

        with byte_bar("unpacking", progress) as show:
            report = unpack_file(source, output, force=force, threads=threads, progress=show)
        show_report(report, as_json=as_json, every=every)
