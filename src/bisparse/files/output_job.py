"""A safetensors output, from its decided plan to its name: opened, filled, renamed; kept for later where it stops."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bisparse.files.checkpoint import Checkpoint
from bisparse.files.errors import CheckpointError, OutputError
from bisparse.files.folder_files import copy_other_files
from bisparse.files.partial import PartialOutput, as_output_error, reserve
from bisparse.files.plan import OutputFile
from bisparse.files.stream import Target

__all__ = ["Fill", "OutputJob"]

Fill = Callable[[Sequence[Target]], list[list[float]]]


@dataclass(frozen=True, slots=True)
class OutputJob:
    """One run that writes safetensors.

    Attributes:
        checkpoint: where other files of a folder are copied from.
        partial: the output under construction.
        durable: synchronise with the disk.
        replaced: names of the input folder that are written in another form, and not to be copied.
    """

    checkpoint: Checkpoint
    partial: PartialOutput
    durable: bool
    replaced: frozenset[str] = frozenset()

    def run(
        self, files: Sequence[OutputFile], fill: Fill, *, folder: bool
    ) -> tuple[list[list[float]], list[str]]:
        """Open the files, have them filled, and give the output its name.

        Args:
            files: what to write.
            fill: brings the data to their places and returns the sums of every block, going on where the journal
                stops.
            folder: whether the output is a folder.

        Returns:
            The sums, and notes for the user.

        Raises:
            CheckpointError: the input is at fault; nothing is left behind.
            OutputError: the output cannot be written; what is done is kept if anything is.
        """
        partial = self.partial
        if partial.finished:
            partial.keep(remove_journal=True)
            return partial.journal.sums, []
        prepared = False
        resumed = partial.journal.done
        try:
            with ExitStack() as stack:
                left = self._prepare_folder(files) if folder else []
                targets = [self._open(file, stack, folder=folder) for file in files]
                prepared = True
                sums = fill(targets)
            partial.commit()
        except CheckpointError:
            partial.discard()
            raise
        except OutputError as error:
            if not prepared or not partial.journal.done:
                partial.discard()
                raise
            partial.keep()
            raise type(error)(
                f"{error}; run the same command again to go on, or delete {partial.path}"
            ) from None
        except BaseException:
            partial.keep()
            raise
        notes = [f"left out, as they hold the dense weights: {', '.join(left)}"] if left else []
        notes += [f"went on with an interrupted run after {resumed} of {len(sums)} blocks"] if resumed else []
        return sums, notes

    def _prepare_folder(self, files: Sequence[OutputFile]) -> list[str]:
        with as_output_error(self.partial.path):
            self.partial.path.mkdir(exist_ok=True)
        if self.checkpoint.kind != "folder":
            return []
        written = {file.name for file in files} | self.replaced
        return copy_other_files(self.checkpoint.path, self.partial.path, written, durable=self.durable)

    def _open(self, file: OutputFile, stack: ExitStack, *, folder: bool) -> Target:
        path = self.partial.path / file.name if folder else self.partial.path
        with as_output_error(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        stack.callback(os.close, fd)
        reserve(fd, file.size, path)
        target = Target(path, fd)
        target.write(memoryview(file.header), 0)
        return target
