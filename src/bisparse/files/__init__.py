"""Checkpoints without code: safetensors in and out, folders, pickles; pruning and inspection from file to
file.
"""

from __future__ import annotations

from bisparse.files.checkpoint import Checkpoint, open_checkpoint
from bisparse.files.errors import CheckpointError, DiskFullError, FileError, OutputError
from bisparse.files.inspect_report import FileInspection, InspectedTensor, PatternCheck
from bisparse.files.inspection import inspect_file
from bisparse.files.prune_report import FilePruneReport, PrunedTensor
from bisparse.files.pruning import prune_file
from bisparse.files.safetensors_reader import SafetensorsFile

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DiskFullError",
    "FileError",
    "FileInspection",
    "FilePruneReport",
    "InspectedTensor",
    "OutputError",
    "PatternCheck",
    "PrunedTensor",
    "SafetensorsFile",
    "inspect_file",
    "open_checkpoint",
    "prune_file",
]
