"""The journal of an unfinished output: what is safely on disk, so that a killed run can go on.

Lines of JSON. The first names the run by a fingerprint of its input and options; each further line counts the
blocks that are written and synchronised, with their sums; the last says that the output is complete. A line
is written only after the data that it speaks of; a line torn by a crash is ignored.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from bisparse.files.errors import DiskFullError, OutputError

__all__ = ["Journal"]

_MAGIC = '{"bisparse journal": 1'


class Journal:
    """An open, locked journal.

    Attributes:
        path: its file.
        new: whether there was none before.
        fingerprint: of the run that it belongs to; ``""`` where it is new or its first line is torn.
        done: blocks that are written.
        sums: one list for each of these blocks.
        complete: whether the output was finished and only has to be given its name.

    Raises:
        OutputError: another run holds it, the file is no journal, or it cannot be created.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        try:
            self._fd = self._open()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from None
        self.new = os.fstat(self._fd).st_size == 0
        self.fingerprint = ""
        self.done = 0
        self.sums: list[list[float]] = []
        self.complete = False
        self._read()

    def _open(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise OutputError(f"another run is writing this output (it holds {self.path})") from None
            try:
                if os.path.samestat(os.fstat(fd), self.path.stat()):
                    return fd
            except FileNotFoundError:
                pass
            os.close(fd)  # its owner removed it between our two calls

    def _read(self) -> None:
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        magic = _MAGIC.encode()
        if data[: len(magic)] != magic[: len(data)]:
            os.close(self._fd)
            raise OutputError(f"{self.path} is in the way and is no journal of bisparse: move it elsewhere")
        end = 0
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n") or not self._take(line):
                break
            end += len(line)
        os.ftruncate(self._fd, end)

    def _take(self, line: bytes) -> bool:
        """Believe one line; False where it is torn."""
        try:
            fields = json.loads(line)
            self.fingerprint = str(fields.get("fingerprint", self.fingerprint))
            if "done" in fields:
                self.done = int(fields["done"])
                self.sums.extend(fields["sums"])
            self.complete = bool(fields.get("complete", False))
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def start(self, fingerprint: str) -> None:
        """Forget what it holds and begin a new run."""
        os.ftruncate(self._fd, 0)
        self.fingerprint, self.done, self.sums, self.complete = fingerprint, 0, [], False
        self._append({"bisparse journal": 1, "fingerprint": fingerprint})

    def record(self, done: int, sums: list[list[float]]) -> None:
        """Note that all blocks before ``done`` are on disk; ``sums`` belong to those not noted before."""
        self._append({"done": done, "sums": sums})
        self.done = done
        self.sums.extend(sums)

    def finish(self) -> None:
        """Note that the output is complete."""
        self._append({"complete": True})
        self.complete = True

    def _append(self, fields: dict[str, object]) -> None:
        line = (json.dumps(fields) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            written = os.pwrite(self._fd, line, size)
            if written < len(line):
                raise DiskFullError(f"cannot write {self.path}: the disk is full")
        except (OSError, DiskFullError):
            os.ftruncate(self._fd, size)
            raise
        if self._durable:
            os.fsync(self._fd)

    def close(self, *, remove: bool = False) -> None:
        """Unlock it, and remove it where its output is finished or given up."""
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
