"""An output that appears only when it is complete: ``OUT.partial`` and its journal, renamed at the end."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bisparse.files.errors import DiskFullError, OutputError
from bisparse.files.journal import Journal
from bisparse.files.replacing import refuse_losing_others

__all__ = ["PartialOutput", "as_output_error", "finish_interrupted", "reserve", "sync_file"]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn what the system says about a failed write into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            reason = "a limit on file sizes" if error.errno == errno.EFBIG else "the disk is full"
            raise DiskFullError(f"cannot write {path}: {reason}") from None
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def finish_interrupted(output: Path, *, durable: bool = True) -> None:
    """Give a complete output its name where a run was killed between moving the old one away and doing so.

    Raises:
        OutputError: another run is at it, or the file system refuses.
    """
    path, journal_path = _beside(output, ".partial"), _beside(output, ".partial.journal")
    if not journal_path.exists() or not path.exists() or os.path.lexists(output):
        return
    with as_output_error(output):
        journal = Journal(journal_path, durable=durable)
        try:
            if journal.complete:
                path.rename(output)
        finally:
            journal.close()


class PartialOutput:
    """The output of one run, under construction.

    Data goes to ``OUT.partial``, progress to ``OUT.partial.journal``. The journal is created first and
    removed last, so that a ``.partial`` without a journal is known to be somebody else's.

    Args:
        output: the final path.
        fingerprint: identifies input and options; an unfinished run with the same one is continued.
        force: replace an existing output.
        durable: synchronise data and journal with the disk, so that a power failure loses nothing either.

    Attributes:
        path: where to write.
        journal: what is done already.
        finished: whether a run with this fingerprint was complete, and killed just before it removed its
            journal.

    Raises:
        OutputError: the output exists and ``force`` is not set, or is more than a checkpoint; its folder is missing
            or read-only; another run is writing it; files that are not ours are in the way.
    """

    def __init__(self, output: Path, fingerprint: str, *, force: bool, durable: bool = True) -> None:
        self.output = output
        self.path = _beside(output, ".partial")
        self._replaced = _beside(output, ".partial.replaced")
        self._durable = durable
        self._force = force
        journal_path = _beside(output, ".partial.journal")
        if not journal_path.exists():
            self._refuse_overwriting()
        with as_output_error(output):
            self.journal = Journal(journal_path, durable=durable)
        try:
            self.finished = self._continue(fingerprint)
        except BaseException:
            self.journal.close(remove=self.journal.new)
            raise

    def _refuse_overwriting(self) -> None:
        parent = self.output.absolute().parent
        if not parent.is_dir():
            raise OutputError(f"cannot write {self.output}: there is no folder {parent}")
        if not os.path.lexists(self.output) or (self.output.is_dir() and not any(self.output.iterdir())):
            return
        if not self._force:
            raise OutputError(
                f"{self.output} exists: choose another name, or replace it with --force (force=True)"
            )
        refuse_losing_others(self.output)

    def _continue(self, fingerprint: str) -> bool:
        """Take up what an earlier run left, or clear it away; True where nothing is left to do."""
        journal = self.journal
        same = journal.fingerprint == fingerprint
        if same and journal.complete and not self.path.exists() and self.output.exists():
            self._drop_replaced()
            return True
        self._refuse_overwriting()
        if journal.complete and os.path.lexists(self.output):
            self._drop_replaced()  # of a run that was killed after its output had got its name
        if journal.new and os.path.lexists(self.path) and not self._force:
            raise OutputError(
                f"{self.path} is in the way and was not left by bisparse: move it, or use --force"
            )
        if not same or not self.path.exists():
            self.restart(fingerprint)
        return False

    def restart(self, fingerprint: str) -> None:
        """Begin anew. Data go before their journal: a ``.partial`` without one would be somebody else's."""
        with as_output_error(self.path):
            _remove(self.path)
            self.journal.start(fingerprint)

    def commit(self) -> None:
        """Give the complete output its name. A kill in the middle is made good by the next run.

        Raises:
            OutputError: the file system refuses.
        """
        with as_output_error(self.output):
            self.journal.finish()
            self._rename()
            self._drop_replaced()
        self.journal.close(remove=True)

    def _rename(self) -> None:
        if os.path.lexists(self.output) and (self.path.is_dir() or self.output.is_dir()):
            self.output.rename(self._replaced)  # a folder cannot replace one that is not empty
        self.path.rename(self.output)
        if self._durable:
            sync_file(self.output.absolute().parent)

    def _drop_replaced(self) -> None:
        if os.path.lexists(self._replaced):
            _remove(self._replaced)

    def keep(self, *, remove_journal: bool = False) -> None:
        """Leave what is done: for a later run, or, without the journal, because it is the output."""
        self.journal.close(remove=remove_journal)

    def discard(self) -> None:
        """Remove every trace."""
        _remove(self.path)
        self.journal.close(remove=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.absolute().parent / (path.absolute().name + suffix)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Synchronise a file or a folder's list of names with the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def reserve(fd: int, size: int, path: Path) -> None:
    """Give a file its final size and the disk space for it, before any work is done.

    Raises:
        DiskFullError: there is not enough space; the line says how much is needed and how much is free.
    """
    space = os.fstatvfs(fd)
    free = space.f_bavail * space.f_frsize + os.fstat(fd).st_blocks * 512
    if free < size:
        raise DiskFullError(f"cannot write {path}: it needs {size:,} bytes and {free:,} are free")
    with as_output_error(path):
        if size:
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
        os.ftruncate(fd, size)
