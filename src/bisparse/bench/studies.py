"""What benchmarks of training runs have in common: studies of cases, measured one at a time."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console

from bisparse.bench.ledger import Ledger, Row

__all__ = ["StudyCase", "measure_studies", "study_options"]


class StudyCase(Protocol):
    """One training run."""

    @property
    def name(self) -> str:
        """Of the run's folder."""

    def row(self) -> Row:
        """The case as key columns."""


C = TypeVar("C", bound=StudyCase)


def study_options(
    description: str | None, studies: Iterable[str], *, seeds: int | None, seeds_help: str | None = None
) -> argparse.Namespace:
    """Read ``--only``, ``--seeds``, ``--limit``, ``--threads`` and ``--tables``; threads are set at once."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--only", choices=list(studies), action="append", help="measure this study; repeatable"
    )
    parser.add_argument("--seeds", type=int, default=seeds, help=seeds_help)
    parser.add_argument("--limit", type=int, default=10**6, help="measure at most so many rows")
    parser.add_argument("--threads", type=int, help="of the processor; default: all cores")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    return options


def measure_studies(
    options: argparse.Namespace,
    studies: Iterable[str],
    cases: Callable[[str, Any], Iterable[C]],
    run_case: Callable[[C, Path], Row],
    ledger: Ledger,
    folder: Path,
    shown: Sequence[str],
) -> None:
    """Run the cases that have no row yet, in order of need.

    Args:
        options: of :func:`study_options`.
        studies: all of them; ``--only`` chooses.
        cases: (study, seeds) -> its cases.
        run_case: (case, folder of all runs) -> its row.
        ledger: where rows go.
        folder: of the checkpoints of runs that are not finished.
        shown: columns that are printed for each row.
    """
    console = Console()
    wanted = itertools.chain.from_iterable(cases(study, options.seeds) for study in options.only or studies)
    missing = [case for case in wanted if case.row() not in ledger]
    for number, case in enumerate([] if options.tables else missing[: options.limit], 1):
        console.print(f"{number} of {len(missing)}: {case.name}", highlight=False)
        row = run_case(case, folder)
        ledger.append(row)
        console.print("  " + ", ".join(f"{name} {row[name]}" for name in shown))
