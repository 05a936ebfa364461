"""Checkpoints without code: safetensors in and out, folders, pickles; pruning and inspection from file to
file.
"""

from __future__ import annotations

from bisparse.files.checkpoint import Checkpoint, open_checkpoint
from bisparse.files.errors import CheckpointError, DiskFullError, FileError, OutputError
from bisparse.files.inspect_report import FileInspection, InspectedTensor, PatternCheck
from bisparse.files.inspection import inspect_file
from bisparse.files.packed.files import pack_file, unpack_file
from bisparse.files.packed.load import load_packed, load_packed_
from bisparse.files.packed.report import PackedTensor, PackReport
from bisparse.files.packed.save import save_packed
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
    "PackReport",
    "PackedTensor",
    "PatternCheck",
    "PrunedTensor",
    "SafetensorsFile",
    "inspect_file",
    "load_packed",
    "load_packed_",
    "open_checkpoint",
    "pack_file",
    "prune_file",
    "save_packed",
    "unpack_file",
]
