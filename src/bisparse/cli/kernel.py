"""``bisparse kernel``: what a trained network learned, as a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bisparse.cli.failures import clear_failures
from bisparse.cli.show import show_report

__all__ = ["kernel"]


def kernel(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT", help="Weights to load into the model; none: the model as it comes."
        ),
    ] = None,
    *,
    model: Annotated[
        str,
        typer.Option(metavar="CODE", help="'package.module:function', or a local Hugging Face folder."),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help=".npz or .safetensors with X and y (perhaps X_test, y_test), or 'package.module:function'.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for report.json and spectra.png [kernel]."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(metavar="N", help="Examples to take; 0: all.", min=0)] = 200,
    loss: Annotated[
        str, typer.Option(metavar="NAME", help="squared, cross_entropy, or auto (by the kind of y).")
    ] = "auto",
    penalty: Annotated[
        float, typer.Option(metavar="λ", help="Of λ/2 |θ|² in training; SGD's weight decay.", min=0.0)
    ] = 0.0,
    masked: Annotated[
        bool, typer.Option("--masked", help="Zeros of weights are masked: report K_M.")
    ] = False,
    outputs: Annotated[
        str, typer.Option(metavar="NAME", help="full (all pairs of outputs), trace (their sum) or auto.")
    ] = "auto",
    memory: Annotated[int, typer.Option(metavar="MB", help="For derivatives.", min=1)] = 512,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the drawn examples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show what a network learned, as a kernel: ranks, what it can never fit, and the theorems that hold.

    At the end of training a network is kernel ridge regression with its own kernel. This says which theorems
    apply to yours, how far it is from each, and why the others do not.

    Try:

    - `bisparse kernel net.safetensors --model nets:build --data digits.npz`

    - `bisparse kernel sparse.pt --model nets:build --data nets:digits --masked -o kernels/`

    - `bisparse kernel net.pt --model nets:build --data data.npz --loss squared --penalty 1e-3 --json`

    Exit codes: 0 done, 2 wrong input or options.
    """
    with clear_failures("kernel"):
        from bisparse.kernel_theory.checkpoint import KernelJob, report_checkpoint, write_report

        job = KernelJob(
            model=model,
            data=data,
            weights=None if checkpoint is None else str(checkpoint),
            rows=rows,
            loss=loss,  # type: ignore[arg-type]  # checked where it is used
            penalty=penalty,
            masked=masked,
            outputs=outputs,
            memory=memory,
            seed=seed,
        )
        report = report_checkpoint(job)
        show_report(report, as_json=as_json)
        written = write_report(report, output or Path("kernel"))
        if not as_json:
            typer.echo(f"written: {', '.join(map(str, written))}")
