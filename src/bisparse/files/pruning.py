"""Pruning a checkpoint without its code: from file to file, tensor by tensor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bisparse.files.checkpoint import Checkpoint, kind_of, open_checkpoint
from bisparse.files.in_memory import load_content, prune_tensors, save_pickle
from bisparse.files.layout_option import LayoutOption
from bisparse.files.masking import Tally
from bisparse.files.output_job import OutputJob
from bisparse.files.partial import PartialOutput, finish_interrupted
from bisparse.files.plan import OutputFile, fingerprint, output_files, steps
from bisparse.files.prune_report import FilePruneReport, report_of
from bisparse.files.replacing import refuse_losing_input
from bisparse.files.selection import Choice, choose
from bisparse.files.stream import Masker, Progress, Target, write_stream
from bisparse.masks.solve import solve_mask
from bisparse.pattern import Pattern, parse_pattern
from bisparse.weights import Selectors

__all__ = ["prune_file"]


def prune_file(
    source: str | Path,
    output: str | Path,
    pattern: str | Pattern,
    *,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    method: str = "exact",
    layout: LayoutOption | None = None,
    force: bool = False,
    threads: int | None = None,
    durable: bool = True,
    progress: Progress | None = None,
) -> FilePruneReport:
    """Prune a checkpoint by magnitude, from file to file, without its code.

    A safetensors output is streamed: memory does not grow with the file or its tensors (a whole-tensor
    pattern needs one tensor). It appears under its name only when it is complete; a run that was killed at
    any moment goes on where it stopped when it is called again, and the result is the same to the byte.
    Pickles are held in memory and start anew.

    Args:
        source: ``.safetensors``, a folder with ``model.safetensors`` or its shards and index, or
            ``.pt/.pth/.th/.bin`` (loaded with ``weights_only=True``).
        output: what to write; its suffix chooses the kind, no suffix means a folder.
        pattern: ``"2:4"``, ``"4:8t"``, ``"unstructured:0.9"``.
        targets: what to prune (names, globs, ``re:`` expressions); ``None`` = every weight.
        ignore: what to leave; ``None`` protects the first convolution, the last classifier or output
            embedding, and embeddings; a list replaces that; ``[]`` protects nothing.
        method: the solver.
        layout: how to read tensors that nobody can tell, ``"h.*.c_attn=transposed"``.
        force: replace an existing output, be it the input itself; it stays whole until the new one is. A folder
            without a model, or under version control, is never replaced.
        threads: upper limit; ``None`` = all cores. The output's bits do not depend on it.
        durable: synchronise with the disk before the output gets its name, so that it survives a power
            failure.
        progress: called with (bytes done, bytes in all).

    Returns:
        One row for every tensor, totals and notes.

    Raises:
        CheckpointError: the input is missing, corrupt, hostile or ambiguous; nothing is left behind.
        OutputError: the output exists, cannot be written, or replacing it would delete other things.
        ValueError: an unknown pattern, method, layout or suffix; names that match nothing.
    """
    start = time.perf_counter()
    parsed = parse_pattern(pattern)
    solve_mask(torch.zeros(1, 1), parsed, method=method)  # refuses an unknown or unfit method before any work
    masker = Masker(parsed, method, threads or len(os.sched_getaffinity(0)))
    target = Path(output)
    kind = kind_of(target)
    finish_interrupted(target, durable=durable)
    with open_checkpoint(source) as checkpoint:
        choices = choose(checkpoint, parsed, targets=targets, ignore=ignore, layout=layout)
        files = [] if kind == "pickle" else output_files(checkpoint, folder=kind == "folder")
        stamp = fingerprint(
            checkpoint, files, choices, {"pattern": str(parsed), "method": method, "kind": kind}
        )
        if force:
            refuse_losing_input(checkpoint.path, target)
        partial = PartialOutput(target, stamp, force=force, durable=durable)
        job = _Job(checkpoint, choices, masker, partial, durable, progress)
        if kind == "pickle":
            names, sums, notes = [c.name for c in choices], *job.to_pickle()
        else:
            names = [name for name, _ in steps(files, {c.name: c for c in choices}, parsed)]
            sums, notes = job.to_safetensors(files, folder=kind == "folder")
            if checkpoint.pickle_only:
                notes.append(
                    f"not carried over, a header holds text only: {', '.join(checkpoint.pickle_only)}"
                )
        tallies = _add_up(names, sums)
    return report_of(
        choices,
        tallies,
        source=str(source),
        output=str(output),
        masker=masker,
        seconds=time.perf_counter() - start,
        notes=(*checkpoint.notes, *_tie_notes(checkpoint), *notes),
    )


def _add_up(names: Iterable[str], sums: Iterable[Sequence[float]]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for name, values in zip(names, sums, strict=True):
        if values:
            tallies.setdefault(name, Tally()).add(Tally.from_list(values))
    return tallies


def _tie_notes(checkpoint: Checkpoint) -> list[str]:
    return [f"tied: {', '.join(others)} = {first}" for first, *others in checkpoint.ties]


@dataclass(frozen=True, slots=True)
class _Job:
    """One run, from the decided plan to the named output."""

    checkpoint: Checkpoint
    choices: Sequence[Choice]
    masker: Masker
    partial: PartialOutput
    durable: bool
    progress: Progress | None

    def to_pickle(self) -> tuple[list[list[float]], list[str]]:
        partial, journal = self.partial, self.partial.journal
        if partial.finished:
            partial.keep(remove_journal=True)
            return journal.sums, []
        try:
            partial.restart(journal.fingerprint)  # half a pickle is of no use
            content, tensors = load_content(self.checkpoint)
            sums = prune_tensors(tensors, self.choices, self.masker, self.progress)
            save_pickle(content, partial.path, durable=self.durable)
            journal.record(len(sums), sums)
            partial.commit()
        except BaseException:
            partial.discard()
            raise
        return sums, []

    def to_safetensors(self, files: list[OutputFile], *, folder: bool) -> tuple[list[list[float]], list[str]]:
        job = OutputJob(self.checkpoint, self.partial, self.durable)
        return job.run(files, lambda targets: self._stream(files, targets), folder=folder)

    def _stream(self, files: Sequence[OutputFile], targets: Sequence[Target]) -> list[list[float]]:
        choices = {choice.name: choice for choice in self.choices}
        ordered = (step for _, step in steps(files, choices, self.masker.pattern))
        return write_stream(
            ordered,
            sum(entry.nbytes for file in files for _, entry, _ in file.parts),
            targets,
            self.partial.journal,
            self.masker,
            durable=self.durable,
            progress=self.progress,
        )
