"""``bisparse bench inference`` and ``bisparse bench training``: where sparse layers pay on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bisparse.cli.failures import clear_failures
from bisparse.cli.show import show_report

if TYPE_CHECKING:
    from bisparse.acceleration.candidates import Mode
    from bisparse.bench.products import ProductReport

__all__ = ["inference", "training"]

_File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="A pruned or packed checkpoint: its N:M matrices are timed."),
]
_Shapes = Annotated[
    list[str], typer.Option("--shapes", "-s", metavar="OxI", help="Outputs x inputs: 4096x1024. Repeatable.")
]
_Pattern = Annotated[
    list[str], typer.Option("--pattern", "-p", metavar="N:M", help="For --shapes. Repeatable.")
]
_Batch = Annotated[list[int], typer.Option("--batch", "-b", help="Tokens per call. Repeatable.", min=1)]
_Dtype = Annotated[list[str], typer.Option(help="float32, bfloat16. Repeatable.")]
_Threads = Annotated[int | None, typer.Option("--threads", "-t", help="Default: all cores.", min=1)]
_Warm = Annotated[bool, typer.Option("--warm", help="Weights stay in the caches, as in a small model.")]
_Repeats = Annotated[int, typer.Option(help="Samples per case; the median counts.", min=1)]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the rows (resumed) and the plot.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the rows as JSON, nothing else.")]


def inference(
    file: _File = None,
    shapes: _Shapes = ["1024x1024", "2048x2048", "4096x4096"],  # noqa: B006
    pattern: _Pattern = ["2:4", "4:8"],  # noqa: B006
    batch: _Batch = [1, 2, 4, 8, 16, 32, 64],  # noqa: B006
    dtype: _Dtype = ["float32", "bfloat16"],  # noqa: B006
    threads: _Threads = None,
    warm: _Warm = False,
    repeats: _Repeats = 11,
    output: _Output = None,
    as_json: _Json = False,
) -> None:
    """Time linear layers, dense against packed, and say up to how many tokens sparsity pays here.

    Weights are driven out of the caches before every sample, as in a model larger than they are; samples are
    taken in turn.

    Try:

    - `bisparse bench inference sparse.safetensors -b 1 -b 8`

    - `bisparse bench inference -s 4096x4096 -s 11008x4096 -p 4:8 --dtype bfloat16 -o results`
    """
    with clear_failures("bench inference"):
        report = _run("inference", file, shapes, pattern, batch, dtype, threads, not warm, repeats, output)
        _show(report, output, as_json=as_json)


def training(
    file: _File = None,
    shapes: _Shapes = ["1024x1024", "2048x2048", "4096x4096"],  # noqa: B006
    pattern: _Pattern = ["2:4", "4:8"],  # noqa: B006
    batch: _Batch = [1, 8, 64, 256],  # noqa: B006
    dtype: _Dtype = ["float32"],  # noqa: B006
    threads: _Threads = None,
    warm: _Warm = False,
    repeats: _Repeats = 7,
    output: _Output = None,
    as_json: _Json = False,
) -> None:
    """The same for training on fixed masks: forward, and backward with the gradients of inputs and weights.

    Try:

    - `bisparse bench training -s 2048x2048 -p 4:8t -b 8 -b 64`
    """
    with clear_failures("bench training"):
        report = _run("training", file, shapes, pattern, batch, dtype, threads, not warm, repeats, output)
        _show(report, output, as_json=as_json)


def _run(
    mode: Mode,
    file: Path | None,
    shapes: list[str],
    patterns: list[str],
    batch: list[int],
    dtypes: list[str],
    threads: int | None,
    cold: bool,
    repeats: int,
    output: Path | None,
) -> ProductReport:
    from bisparse.bench.product_cases import grid, parse_shape, shapes_of_file
    from bisparse.bench.products import open_ledger, run_products
    from bisparse.machine import bfloat16_fault

    if file is not None:
        wanted = shapes_of_file(file)
    else:
        wanted = [(*parse_shape(shape), pattern) for pattern in patterns for shape in shapes]
    if "bfloat16" in dtypes and (fault := bfloat16_fault()):
        dtypes = [name for name in dtypes if name != "bfloat16"]
        if not dtypes:
            raise ValueError(fault)
        Console(stderr=True, soft_wrap=True).print(f"without bfloat16: {fault}", style="yellow", markup=False)
    cores = threads or len(os.sched_getaffinity(0))
    cases = grid(mode, wanted, dtypes=dtypes, tokens=sorted(set(batch)), threads=cores, cold=cold)
    ledger = open_ledger(None if output is None else output / f"{mode}.json")
    with Console(stderr=True, soft_wrap=True).status("starting") as status:
        return run_products(cases, ledger, repeats=repeats, progress=status.update)


def _show(report: ProductReport, output: Path | None, *, as_json: bool) -> None:
    show_report(report, as_json=as_json, every=True)
    if output is not None:
        from bisparse.bench.product_plots import draw_speedups

        picture = draw_speedups(report.rows, output / f"{report.mode}.png")
        Console(stderr=True, soft_wrap=True).print(str(picture), markup=False)
