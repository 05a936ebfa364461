"""Exact masks and 2:4 linear layers on a GPU: interleaved, medians of event times, one row at a time into a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from bisparse.bench.ledger import Ledger, Row
from bisparse.kernels.semi_structured_limits import BACKENDS, device_misfit, misfit
from bisparse.kernels.semi_structured_linear import SemiStructuredLinear
from bisparse.masks.result import MaskResult
from bisparse.masks.solve import solve_mask
from bisparse.masks.verify import verify_mask

__all__ = [
    "KEY",
    "LINEARS",
    "PATTERNS",
    "SIZE",
    "Clock",
    "Linear",
    "check_solver",
    "event_clock",
    "gpu_machine",
    "run_linears",
    "run_solver",
    "time_in_turn",
]

KEY = ("machine", "what", "case", "variant")
SIZE = 8192
PATTERNS = ("2:4t", "4:8t", "8:16t", "16:32t")
_MORE = ("1:4t", "3:8t", "5:12t", "2:4", "4:8", "unstructured:0.9")  # checked, not timed
_DATA = ("gaussian", "bfloat16", "80% zeros", "warm 0.001")

Call = Callable[[], object]
Clock = Callable[[Call], float]


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer at a number of tokens."""

    name: str
    tokens: int
    columns: int
    rows: int

    @property
    def case(self) -> str:
        """As it stands in the tables."""
        return f"{self.name}: {self.tokens} x {self.columns} to {self.rows}"


LINEARS = (
    Linear("ViT-L up", 13008, 1024, 4096),
    Linear("ViT-L down", 13008, 4096, 1024),
    Linear("Llama-8B attention", 8192, 4096, 4096),
    Linear("Llama-8B up", 8192, 4096, 14336),
    Linear("Llama-8B down", 8192, 14336, 4096),
    Linear("square", 4096, 4096, 4096),
    Linear("square", 8192, 8192, 8192),
    Linear("few tokens", 512, 4096, 4096),
)


def gpu_machine() -> str:
    """GPU and versions that a number belongs to.

    Raises:
        RuntimeError: no NVIDIA GPU is visible to PyTorch.
    """
    if not torch.cuda.is_available() or torch.version.hip is not None:
        raise RuntimeError(
            f"no NVIDIA GPU is visible to PyTorch {torch.__version__}: run this on a machine that has one, with a CUDA "
            "build of PyTorch (https://pytorch.org)"
        )
    import triton

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}"


def event_clock(call: Call) -> float:
    """Seconds between two events on the device around a call; what the host waits for in between counts."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3


def time_in_turn(
    calls: Mapping[str, Call], clock: Clock, *, repeats: int = 15, seconds: float = 8.0
) -> dict[str, float]:
    """Median seconds of every call, one sample of each in turn, after two calls to warm up.

    No new round begins after ``seconds``, but three always run.
    """
    for call in [*calls.values(), *calls.values()]:
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin = perf_counter()
    for repeat in range(repeats):
        if repeat >= 3 and perf_counter() - begin > seconds:
            break
        for name, call in calls.items():
            samples[name].append(clock(call))
    return {name: median(found) for name, found in samples.items()}


def draw(kind: str, size: int, device: torch.device) -> Tensor:
    """Scores of a kind: magnitudes of normal numbers, rounded to bfloat16, or 80% of them zero."""
    scores = torch.randn(size, size, device=device, generator=torch.Generator(device).manual_seed(0)).abs()
    if kind == "bfloat16":
        return scores.bfloat16()
    if kind == "80% zeros":
        uniform = torch.rand(size, size, device=device, generator=torch.Generator(device).manual_seed(1))
        return scores * (uniform > 0.8)
    return scores


def check_solver(device: torch.device, patterns: Sequence[str] = (*PATTERNS, *_MORE)) -> Iterator[str]:
    """Solve small matrices on the device and on the CPU; say what differs (nothing, if all is well).

    Edges cut through tiles; strides and types are those of the timed matrices, so that kernels are compiled once.
    """
    for pattern in patterns:
        for kind in ("gaussian", "80% zeros", *(["bfloat16"] if pattern in PATTERNS else [])):
            scores = draw(kind, 528, device)[:521, :488]
            duals = pattern.endswith("t")
            found = solve_mask(scores, pattern, return_duals=duals)
            expected = solve_mask(scores.cpu(), pattern)
            verdict = verify_mask(found.mask, pattern, scores=scores, duals=found.duals)
            if not verdict.optimal:
                yield f"{pattern}, {kind}: not optimal (gap {verdict.gap:.1e}) {'; '.join(verdict.violations)}"
            if abs(found.objective - expected.objective) > 1e-7 * expected.objective:
                yield f"{pattern}, {kind}: objective {found.objective!r}, on the CPU {expected.objective!r}"
            if kind == "gaussian" and not torch.equal(found.mask.cpu(), expected.mask):
                yield f"{pattern}, {kind}: the mask is not the CPU's"


def run_solver(
    ledger: Ledger, machine: str, device: torch.device, *, clock: Clock = event_clock, size: int = SIZE
) -> None:
    """Time exact masks of size x size scores on the device; rows that are there are not measured again."""
    for kind in _DATA:
        keys = {p: {"machine": machine, "what": "mask", "case": p, "variant": kind} for p in PATTERNS}
        missing = [pattern for pattern in PATTERNS if keys[pattern] not in ledger]
        if not missing:
            continue
        calls, results = _solves(missing, kind, size, device)
        for pattern, spent in time_in_turn(calls, clock).items():
            result = results[pattern]
            row: Row = {"seconds": spent, "size": size, "gap": result.gap, "rounds": result.rounds}
            ledger.append({**keys[pattern], **row, "repaired": result.repaired_tiles})


def _solves(
    patterns: list[str], kind: str, size: int, device: torch.device
) -> tuple[dict[str, Call], dict[str, MaskResult]]:
    """Calls by pattern, and the last result of each."""
    scores = draw(kind, size, device)
    moved = scores + 1e-3 * torch.rand_like(scores) if kind.startswith("warm") else scores
    results: dict[str, MaskResult] = {}

    def solve(pattern: str, start: MaskResult | None) -> Call:
        def call() -> None:
            results[pattern] = solve_mask(moved, pattern, warm_start=start)

        return call

    warm = kind.startswith("warm")
    starts = {p: solve_mask(scores, p, return_duals=True) if warm else None for p in patterns}
    return {pattern: solve(pattern, starts[pattern]) for pattern in patterns}, results


def run_linears(
    ledger: Ledger,
    machine: str,
    device: torch.device,
    *,
    clock: Clock = event_clock,
    linears: Sequence[Linear] = LINEARS,
) -> None:
    """Time forward and backward of 2:4t layers by every backend that fits, against dense, values repacked each time."""
    for linear in linears:
        key: Row = {"machine": machine, "what": "linear", "case": linear.case}
        variants = ["dense", *BACKENDS]
        if all({**key, "variant": variant} in ledger for variant in variants):
            continue
        layers, refused = _layers(linear, device)
        x = torch.randn(linear.tokens, linear.columns, device=device, dtype=torch.bfloat16)
        up = torch.randn(linear.tokens, linear.rows, device=device, dtype=torch.bfloat16)
        calls = {name: forward_backward(layer, x, up) for name, layer in layers.items()}
        expected = calls["dense"]()
        times = time_in_turn(calls, clock)
        for name, spent in times.items():
            row: Row = {"seconds": spent, "gain": times["dense"] / spent, "reason": ""}
            ledger.append({**key, "variant": name, **row, "difference": _distance(calls[name](), expected)})
        for name, reason in refused.items():
            ledger.append({**key, "variant": name, "seconds": None, "gain": None, "reason": reason})


def _layers(linear: Linear, device: torch.device) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The dense layer, a sparse one for each backend that fits, and why the others do not."""
    dense = nn.Linear(linear.columns, linear.rows, bias=False, device=device, dtype=torch.bfloat16)
    mask = solve_mask(dense.weight.detach(), "2:4t", magnitude=True).mask
    with torch.no_grad():
        dense.weight *= mask
    layers: dict[str, nn.Module] = {"dense": dense}
    refused = {}
    for backend in BACKENDS:
        reason = misfit(dense.weight.shape, torch.bfloat16, backend) or device_misfit(device, backend)
        if reason:
            refused[backend] = reason
        else:
            layers[backend] = SemiStructuredLinear.from_linear(dense, mask, backend=backend)
    return layers, refused


def forward_backward(layer: nn.Module, x: Tensor, up: Tensor) -> Callable[[], list[Tensor]]:
    """One call: output, and the gradients of input and weight."""

    def call() -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        y = layer(leaf)
        return [y.detach(), *torch.autograd.grad(y, [leaf, *layer.parameters()], up)]

    return call


def _distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative distance of two lists of tensors."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).float().norm()) / max(float(b.float().norm()), 1e-30) for a, b in pairs)
