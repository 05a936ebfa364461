"""What can be wrong with files: one exception for what was read, one for what was to be written."""

from __future__ import annotations

__all__ = ["CheckpointError", "DiskFullError", "FileError", "OutputError"]


class FileError(Exception):
    """A file could not be used; the message is one line that says what is wrong and what to do."""


class CheckpointError(FileError, ValueError):
    """The input is no usable checkpoint: corrupt, hostile, of an unknown kind, or ambiguous."""


class OutputError(FileError):
    """The output cannot be written: it exists, its folder is missing or read-only, another run writes it."""


class DiskFullError(OutputError):
    """The output does not fit: the disk, a quota or a limit of the process is exhausted."""
