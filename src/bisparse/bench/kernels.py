"""The benchmark of packed products: dense against packed, both orientations, one row at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from bisparse.bench.ledger import Ledger, Row
from bisparse.kernels import multiply, multiply_transposed, pack_matrix, value_gradient
from bisparse.machine import describe_machine
from bisparse.nn import PackedConv2d
from bisparse.pattern import NM, parse_pattern
from bisparse.timing import interleave, torch_threads
from bisparse.weights.layout import Layout, from_matrices

__all__ = ["KEY", "KernelCase", "full_grid", "open_ledger", "random_masked", "run_kernels"]

KEY = ("machine", "way", "rows", "columns", "kernel", "pattern", "dtype", "batch", "threads")


@dataclass(frozen=True, slots=True)
class KernelCase:
    """One product to time.

    Attributes:
        way: ``forward`` x W^T; ``transposed`` y W; ``repacked`` y W from W^T packed on its own; ``gradient`` of the
            kept values; ``conv``, forward.
        rows: of W; output channels.
        columns: of W; input channels.
        pattern: ``keep:block``.
        dtype: of weights and activations.
        batch: tokens; for ``conv`` the height and width of the image.
        kernel: side of the kernel of a ``conv``.
        threads: of both sides.
    """

    way: str
    rows: int
    columns: int
    pattern: str
    dtype: str
    batch: int
    kernel: int = 1
    threads: int = 2

    def key(self, machine: str) -> Row:
        """What identifies its row."""
        return {"machine": machine, **asdict(self)}


def full_grid(threads: int = 2) -> list[KernelCase]:
    """Every case of the document."""
    shapes = [(1024, 1024), (2048, 2048), (4096, 4096), (11008, 4096)]
    dtypes = ("float32", "bfloat16")
    ways = ("forward", "transposed")
    cases = [
        KernelCase(way, rows, columns, "4:8", dtype, batch, threads=threads)
        for (rows, columns), dtype, batch, way in product(shapes, dtypes, (1, 2, 4, 8, 16, 64), ways)
    ]
    cases += [
        KernelCase(way, 4096, 4096, pattern, dtype, batch, threads=threads)
        for pattern, dtype, batch, way in product(
            ("1:4", "2:8", "2:4", "8:16", "16:32"), dtypes, (1, 8), ways
        )
    ]
    cases += [
        KernelCase("repacked", 4096, 4096, "4:8", "float32", batch, threads=threads) for batch in (1, 8, 64)
    ]
    cases += [
        KernelCase("gradient", 4096, 4096, "4:8", "float32", batch, threads=threads) for batch in (8, 64, 512)
    ]
    convs = [(256, 1024, 14, 1), (2048, 512, 7, 1), (512, 2048, 7, 1), (256, 256, 14, 3), (512, 512, 7, 3)]
    cases += [
        KernelCase("conv", rows, columns, "4:8", "float32", side, kernel, threads)
        for rows, columns, side, kernel in convs
    ]
    return cases


def random_masked(rows: int, columns: int, pattern: NM, dtype: torch.dtype) -> Tensor:
    """Gaussian weights under a random mask of the pattern; ``block`` divides ``columns``."""
    generator = torch.Generator().manual_seed(rows + columns)
    masks = torch.rand(256, pattern.block, generator=generator).argsort(1) < pattern.keep
    choice = torch.randint(256, (rows, columns // pattern.block), generator=generator)
    return torch.randn(rows, columns, generator=generator).mul_(masks[choice].flatten(1)).to(dtype)


def run_kernels(
    cases: Sequence[KernelCase],
    ledger: Ledger,
    *,
    repeats: int = 9,
    seconds: float = 2.0,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Time every case that the ledger does not hold yet.

    Args:
        cases: what to time; neighbours with equal weights share them.
        ledger: from ``open_ledger``; every row is saved as soon as it is measured.
        repeats: interleaved samples of each side.
        seconds: after which a case takes no more samples than three.
        progress: told in words what is being done.

    Returns:
        The rows of all cases, those measured earlier included: the case, ``dense_us``, ``packed_us`` (medians),
        ``ratio``, ``difference`` (largest, relative to the largest output) and ``samples``.
    """
    machine = _machine()
    for case in cases:
        if case.key(machine) in ledger:
            continue
        if progress is not None:
            progress(
                f"{case.way} {case.rows} x {case.columns}, {case.pattern} {case.dtype}, batch {case.batch}"
            )
        with torch_threads(case.threads), torch.inference_mode():
            ledger.append({**case.key(machine), **_measured(case, repeats, seconds)})
    return ledger.find(case.key(machine) for case in cases)


def _machine() -> str:
    """The machine, and what PyTorch's dense products were kept from using on it."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return describe_machine() + (f", oneDNN up to {limit}" if limit else "")


def _measured(case: KernelCase, repeats: int, seconds: float) -> Row:
    """Time both sides in turn and compare what they answer."""
    calls = _conv_calls(case) if case.way == "conv" else _product_calls(case)
    dense, packed = (call().double() for call in calls.values())
    if case.way == "gradient":  # the dense product computes all entries; compare those that are kept
        dense = dense[_weight(case) != 0].view(packed.shape)
    difference = float((dense - packed).abs().max() / dense.abs().max())
    runs = interleave(calls, repeats=repeats, seconds=seconds)
    times = {name: median(samples) for name, samples in runs.items()}
    return {
        "dense_us": 1e6 * times["dense"],
        "packed_us": 1e6 * times["packed"],
        "ratio": times["dense"] / times["packed"],
        "difference": difference,
        "samples": len(runs["dense"]),
    }


def _pattern(case: KernelCase) -> NM:
    pattern = parse_pattern(case.pattern)
    if not isinstance(pattern, NM):
        raise ValueError(f"{case.pattern}: the benchmark times row-wise keep:block patterns")
    return pattern


def _weight(case: KernelCase) -> Tensor:
    return random_masked(case.rows, case.columns, _pattern(case), getattr(torch, case.dtype))


def _product_calls(case: KernelCase) -> dict[str, Callable[[], Tensor]]:
    pattern = _pattern(case)
    dtype: torch.dtype = getattr(torch, case.dtype)
    sizes = (case.columns, pattern.keep, pattern.block)
    weight = _weight(case)
    x, y = (torch.randn(case.batch, features).to(dtype) for features in (case.columns, case.rows))
    packed = pack_matrix(weight, pattern)
    parts = (packed.values, packed.index)
    if case.way == "forward":
        return {
            "dense": lambda: functional.linear(x, weight),
            "packed": lambda: multiply(x, *parts, None, *sizes),
        }
    if case.way == "transposed":
        return {"dense": lambda: y @ weight, "packed": lambda: multiply_transposed(y, *parts, *sizes)}
    if case.way == "gradient":
        return {
            "dense": lambda: y.t() @ x,
            "packed": lambda: value_gradient(y, x, *parts, None, *sizes),
        }
    other = pack_matrix(random_masked(case.columns, case.rows, pattern, dtype), pattern)
    turned = other.unpack().t().contiguous()
    sizes = (case.rows, pattern.keep, pattern.block)
    return {
        "dense": lambda: y @ turned,
        "packed": lambda: multiply(y, other.values, other.index, None, *sizes),
    }


def _conv_calls(case: KernelCase) -> dict[str, Callable[[], Tensor]]:
    pattern = _pattern(case)
    conv = nn.Conv2d(case.columns, case.rows, case.kernel, padding=case.kernel // 2, bias=False)
    positions = case.kernel**2
    matrices = random_masked(positions * case.rows, case.columns, pattern, torch.float32)
    weight = from_matrices(
        matrices.view(positions, case.rows, case.columns), Layout("conv"), conv.weight.shape
    )
    conv.weight = nn.Parameter(weight)
    layer = PackedConv2d.from_conv(conv, pattern)
    x = torch.randn(1, case.columns, case.batch, case.batch)
    return {"dense": lambda: conv(x), "packed": lambda: layer(x)}


def open_ledger(path: Path | None) -> Ledger:
    """The ledger of this benchmark; ``None`` keeps the rows in memory."""
    return Ledger(path, KEY)
