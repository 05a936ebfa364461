"""The mask benchmark: every case of a grid timed against the memory pass, one row at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from bisparse.bench.ledger import Ledger, Row
from bisparse.bench.mask_cases import KEY, Group, MaskCase
from bisparse.bench.mask_contenders import BASELINES, memory_pass
from bisparse.bench.mask_scores import make_weights, perturb
from bisparse.machine import describe_machine
from bisparse.masks.result import Duals, MaskResult
from bisparse.masks.solve import solve_mask
from bisparse.pattern import parse_pattern
from bisparse.timing import interleave, torch_threads

__all__ = ["open_ledger", "run_masks"]

FLOW_SIZE = 256
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Contender:
    """A case made ready: its scores, what to call, and the answer of an untimed call."""

    case: MaskCase
    scores: Tensor
    call: Callable[[], object]
    objective: float
    bound: float
    rounds: int
    repaired: int


def run_masks(
    grid: Sequence[Group],
    ledger: Ledger,
    *,
    repeats: int = 7,
    seconds: float = 30.0,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Time every case of the grid that the ledger does not hold yet.

    Cases of a group share size and threads and run in turn, with the memory pass over the same scores.

    Args:
        grid: the groups.
        ledger: from ``open_ledger``; every row is saved as soon as its group is done.
        repeats: samples per case.
        seconds: after which a group takes no more samples than three.
        progress: told in words what is being done.

    Returns:
        The rows of all cases of the grid, in its order, those measured earlier included. Columns: the case,
        ``seconds`` (median), ``passes`` (seconds over those of the memory pass), ``ns_per_weight``, ``gap``
        (proven, relative), ``rounds``, ``repaired_tiles``, ``pass_seconds``, ``samples``,
        ``extrapolated_from`` (the side of the corner that was solved, else none).
    """
    tell = progress or (lambda _: None)
    machine = describe_machine()
    for number, group in enumerate(grid, 1):
        missing = [case for case in group if case.key(machine) not in ledger]
        if not missing:
            continue
        first = missing[0]
        tell(
            f"group {number} of {len(grid)}: {len(missing)} cases of {first.size} x {first.size}, "
            f"{first.threads} thread(s)"
        )
        with torch_threads(first.threads):
            contenders = _prepare(missing)
            for row in _measure(contenders, machine, repeats, seconds):
                ledger.append(row)
    wanted = [case.key(machine) for group in grid for case in group]
    return ledger.find(wanted)


def _prepare(cases: Iterable[MaskCase]) -> list[_Contender]:
    """Make the scores, each once, and solve every case once."""
    contenders: list[_Contender] = []
    drawn: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
    for case in cases:
        contender = _contender(case, drawn)
        if contender is not None:
            contenders.append(contender)
    return contenders


def _contender(case: MaskCase, drawn: dict[tuple[object, ...], tuple[Tensor, Tensor]]) -> _Contender | None:
    """One case made ready; ``None``, with a warning, where this machine lacks what it needs."""
    try:
        return _solved(case, drawn)
    except (FileNotFoundError, ImportError) as error:
        _LOGGER.warning("left out: %s %s on %s data: %s", case.method, case.pattern, case.data, error)
        return None


def _solved(case: MaskCase, drawn: dict[tuple[object, ...], tuple[Tensor, Tensor]]) -> _Contender:
    """Draw the scores, each kind once, and solve."""
    origin = (case.data, case.size, case.dtype, case.start)
    if origin not in drawn:
        drawn[origin] = _scores(case)
    before, scores = drawn[origin]
    pattern = parse_pattern(case.pattern)
    if case.method in BASELINES:
        make = BASELINES[case.method]
        return _judged(case, scores, lambda: make(scores, pattern), make(scores, pattern))
    if case.method == "flow":
        scores = scores[:FLOW_SIZE, :FLOW_SIZE].contiguous()
    duals: Duals | None = None
    if case.start != "cold":
        duals = solve_mask(before, pattern, return_duals=True, threads=case.threads).duals

    def call() -> MaskResult:
        return solve_mask(scores, pattern, method=case.method, warm_start=duals, threads=case.threads)

    return _judged(case, scores, call, call())


def _scores(case: MaskCase) -> tuple[Tensor, Tensor]:
    """Scores before a change and after it; the same tensor for a cold start."""
    weights = make_weights(case.data, case.size)
    dtype: torch.dtype = getattr(torch, case.dtype)
    before = weights.to(dtype).abs_()
    if case.start == "cold":
        return before, before
    return before, perturb(weights, float(case.start.split()[1])).to(dtype).abs_()


def _judged(
    case: MaskCase, scores: Tensor, call: Callable[[], object], answer: MaskResult | Tensor
) -> _Contender:
    """Attach the objective and the best proven bound, which is the exact solver's."""
    if isinstance(answer, MaskResult):
        objective, bound = answer.objective, answer.bound
        rounds, repaired = answer.rounds, answer.repaired_tiles
    else:
        objective, bound, rounds, repaired = float(scores.double()[answer].sum().item()), float("inf"), 0, 0
    if case.method != "exact":
        bound = min(bound, solve_mask(scores, parse_pattern(case.pattern), threads=case.threads).bound)
    return _Contender(case, scores, call, objective, bound, rounds, repaired)


def _measure(contenders: Sequence[_Contender], machine: str, repeats: int, seconds: float) -> Iterable[Row]:
    """Interleave the contenders with one memory pass for each dtype and size among them."""
    calls = {str(number): contender.call for number, contender in enumerate(contenders)}
    for contender in contenders:
        calls.setdefault(_pass_name(contender), memory_pass(contender.scores))
    times = interleave(calls, repeats=repeats, seconds=seconds)
    for number, contender in enumerate(contenders):
        samples = times[str(number)]
        yield _row(contender, machine, median(samples), median(times[_pass_name(contender)]), len(samples))


def _pass_name(contender: _Contender) -> str:
    """Contenders with equal shape and dtype share a memory pass."""
    return f"pass {contender.scores.dtype} {tuple(contender.scores.shape)}"


def _row(contender: _Contender, machine: str, seconds: float, pass_seconds: float, samples: int) -> Row:
    """The measured columns; seconds are scaled up where only a corner was solved, and the row says so."""
    case, weights = contender.case, contender.scores.numel()
    scale = case.size * case.size / weights
    gap = max(0.0, contender.bound - contender.objective) / contender.objective
    return {
        **case.key(machine),
        "seconds": seconds * scale,
        "passes": seconds / pass_seconds,
        "ns_per_weight": 1e9 * seconds / weights,
        "gap": gap,
        "rounds": contender.rounds,
        "repaired_tiles": contender.repaired,
        "pass_seconds": pass_seconds * scale,
        "samples": samples,
        "extrapolated_from": contender.scores.shape[0] if scale > 1 else None,
    }


def open_ledger(path: Path | None) -> Ledger:
    """The ledger of this benchmark; ``None`` keeps the rows in memory."""
    return Ledger(path, KEY)
