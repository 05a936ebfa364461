"""What the mask benchmark measures: single cases, and the groups in which they are interleaved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TypeAlias

from bisparse.bench.ledger import Row
from bisparse.bench.mask_scores import DATA_KINDS

__all__ = ["DTYPES", "KEY", "Group", "MaskCase", "custom_grid", "full_grid", "quick_grid"]

TRANSPOSABLE = ("2:4t", "1:4t", "4:8t", "2:8t", "8:16t", "16:32t")
PLAIN = ("2:4", "4:8", "unstructured:0.5")
MAIN = ("2:4t", "4:8t", "8:16t", "16:32t")
DTYPES = ("float32", "bfloat16", "float16", "float64")
TARGET_SIZE = 4096
METHODS_SIZE = 1024

KEY = ("machine", "method", "pattern", "size", "data", "dtype", "start", "threads")


@dataclass(frozen=True, slots=True)
class MaskCase:
    """One thing to time.

    Attributes:
        method: a method of ``solve_mask``, or a baseline: ``topk`` (``torch.topk`` and scatter),
            ``product90`` (all 90 masks of a 2:4t tile by one matrix product).
        pattern: text form.
        size: rows and columns of the square matrix.
        data: what the scores are drawn from.
        dtype: of the scores.
        start: ``cold``, or ``warm 0.001``: from the duals of weights that differ by that much noise.
        threads: for the solver and for PyTorch.
    """

    method: str
    pattern: str
    size: int
    data: str = "gaussian"
    dtype: str = "float32"
    start: str = "cold"
    threads: int = 2

    def key(self, machine: str) -> Row:
        """The columns that identify this case's row."""
        return {"machine": machine, **asdict(self)}


Group: TypeAlias = tuple[MaskCase, ...]


def full_grid() -> list[Group]:
    """Everything that ``docs/benchmarks.md`` reports, in groups of one size and thread count."""
    return [*_inputs(), _baselines(2), *_scaling(2), *_methods(), _baselines(1), *_scaling(1)]


def quick_grid(threads: int) -> list[Group]:
    """A first impression in seconds: small matrices, every method but the slow ones."""
    methods = ("exact", "greedy", "two_approx")
    main = [MaskCase(method, pattern, 512, threads=threads) for pattern in MAIN for method in methods]
    plain = [
        MaskCase(method, pattern, 512, threads=threads) for pattern in PLAIN for method in ("exact", "topk")
    ]
    return [tuple(main), tuple(plain)]


def custom_grid(
    *,
    methods: Sequence[str],
    patterns: Sequence[str],
    sizes: Sequence[int],
    data: Sequence[str],
    dtypes: Sequence[str],
    starts: Sequence[str],
    threads: Sequence[int],
) -> list[Group]:
    """Every combination that makes sense, one group for each size and thread count."""
    _known("data", data, DATA_KINDS)
    _known("dtype", dtypes, DTYPES)
    for start in starts:
        if start != "cold" and not re.fullmatch(r"warm \d*\.?\d+(e-?\d+)?", start):
            raise ValueError(
                f"start {start!r}: write 'cold', or 'warm 0.001' for noise of that relative size"
            )
    groups: list[Group] = []
    for size, count in product(sizes, threads):
        cases = (
            MaskCase(method, pattern, size, kind, dtype, start, count)
            for pattern, kind, dtype, start, method in product(patterns, data, dtypes, starts, methods)
        )
        groups.append(tuple(case for case in cases if _sensible(case)))
    return [group for group in groups if group]


def _known(what: str, names: Sequence[str], allowed: Iterable[str]) -> None:
    """Refuse a name that is not on the list."""
    choices = list(allowed)
    for name in names:
        if name not in choices:
            raise ValueError(f"{what} {name!r} is unknown: choose from {', '.join(choices)}")


def _sensible(case: MaskCase) -> bool:
    """Whether the method exists for the pattern and the start."""
    transposable = case.pattern.endswith("t")
    if case.method == "exact":
        return transposable or case.start == "cold"
    if case.start != "cold":
        return False
    if case.method == "product90":
        return case.pattern == "2:4t"
    return transposable != (case.method == "topk")


def _inputs() -> Iterable[Group]:
    """The exact solver at the size of the targets: kinds of data, dtypes, warm starts."""
    for pattern in TRANSPOSABLE:
        exact = MaskCase("exact", pattern, TARGET_SIZE)
        yield (
            exact,
            *(_with(exact, data=kind) for kind in ("student", "zeros80", "zeros95", "real")),
            *(_with(exact, dtype=dtype) for dtype in DTYPES[1:]),
            *(_with(exact, start=start) for start in ("warm 0.001", "warm 0.01")),
        )


def _baselines(threads: int) -> Group:
    """Row-wise and unstructured masks against topk, and the 90-mask product, at the size of the targets."""
    plain = [
        MaskCase(method, pattern, TARGET_SIZE, threads=threads)
        for pattern in PLAIN
        for method in ("exact", "topk")
    ]
    tile = [MaskCase(method, "2:4t", TARGET_SIZE, threads=threads) for method in ("exact", "product90")]
    return (*plain, *tile)


def _scaling(threads: int) -> Iterable[Group]:
    """Cost against size, every pattern."""
    for size in (512, 1024, 2048, 4096, 8192):
        yield tuple(
            MaskCase("exact", pattern, size, threads=threads) for pattern in (*TRANSPOSABLE, *PLAIN[:2])
        )


def _methods() -> Iterable[Group]:
    """Every method against the exact one, on a smaller matrix because some are slow."""
    methods = ("exact", "greedy", "two_approx", "entropic", "flow")
    for pattern in MAIN:
        extra = ("product90",) if pattern == "2:4t" else ()
        yield tuple(MaskCase(method, pattern, METHODS_SIZE) for method in (*methods, *extra))
    for kind in ("student", "zeros80"):
        yield tuple(MaskCase(method, "4:8t", METHODS_SIZE, kind) for method in methods)


def _with(case: MaskCase, **changes: str) -> MaskCase:
    """The case with some columns changed."""
    return MaskCase(**{**asdict(case), **changes})
