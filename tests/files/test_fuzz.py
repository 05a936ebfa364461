"""Thousands of damaged and hostile files: each is read rightly or refused with one line; nothing is left
behind.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bisparse.files import CheckpointError, FileError, inspect_file, open_checkpoint, prune_file

NASTY = [
    b"0",
    b"-1",
    b"9" * 30,
    b"1e9",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"4294967296",
    b"18446744073709551615",
]


def _damaged(data: bytes, chance: random.Random, start: int = 0) -> bytes:
    """One to three changes: bits, bytes, numbers, cuts, repeats, swaps."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(start, max(start + 1, len(result)))
        kind = chance.randrange(6)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and place < len(result):
            result[place] = chance.randrange(256)
        elif kind == 2:
            del result[place : place + chance.choice([1, 2, 8, 100, len(result)])]
        elif kind == 3:
            result[place:place] = result[place : place + chance.randint(1, 20)]
        elif kind == 4:
            result[place:place] = bytes(chance.choice(NASTY))
        else:
            result[place : place + 8] = chance.randrange(2**64).to_bytes(8, "little")
    return bytes(result)


def _check_line(error: FileError) -> None:
    """What the user sees is one line of bearable length."""
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def _refused_or_right(path: Path, work: Path) -> bool:
    """Prune it; True where that worked. Only our own errors may come out, of one line; no leftovers."""
    output = work / "out.safetensors"
    try:
        prune_file(path, output, "2:4t", ignore=[], durable=False, threads=1)
    except FileError as error:
        _check_line(error)
        assert sorted(p.name for p in work.iterdir()) == [path.name]
        return False
    output.unlink()
    assert sorted(p.name for p in work.iterdir()) == [path.name]
    return True


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_damaged_safetensors(tmp_path: Path, work: Path) -> None:
    chance = random.Random(0)
    tensors = {"a.weight": torch.randn(4, 8), "b.weight": torch.randn(4, 4).half(), "n": torch.arange(3)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    data = (tmp_path / "x.safetensors").read_bytes()
    path = work / "x.safetensors"
    accepted = 0
    for _ in range(2500):
        path.write_bytes(_damaged(data, chance))
        accepted += _refused_or_right(path, work)
    assert 0 < accepted < 1500  # damage to values goes unnoticed, all other damage is refused


def test_damaged_header_values(work: Path) -> None:
    """The header stays JSON, but says something else."""
    chance = random.Random(1)
    values: list[object] = [
        0,
        1,
        3,
        8,
        16,
        32,
        64,
        96,
        -1,
        2**31,
        2**62,
        2**64,
        1.5,
        None,
        "F32",
        "I64",
        [],
        {},
        True,
    ]
    path = work / "x.safetensors"
    accepted = 0
    for _ in range(2500):
        header = {
            "a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]},
            "b.weight": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [64, 96]},
        }
        for _ in range(chance.randint(1, 3)):
            entry = header[chance.choice(["a", "b.weight"])]
            key = chance.choice(["dtype", "shape", "data_offsets"])
            inner = entry[key]
            if isinstance(inner, list) and inner and chance.random() < 0.8:
                inner[chance.randrange(len(inner))] = chance.choice(values)  # type: ignore[call-overload]
            else:
                entry[key] = chance.choice(values)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(96))
        accepted += _refused_or_right(path, work)
    assert accepted < 1250


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_pickles(tmp_path: Path, work: Path, legacy: bool) -> None:
    chance = random.Random(2)
    shared = torch.randn(4, 8)
    state = OrderedDict({"a.weight": shared, "b.weight": shared, "c.weight": torch.randn(8, 4).t()})
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, buffer, _use_new_zipfile_serialization=not legacy)
    path = work / "x.pt"
    for _ in range(1200):
        path.write_bytes(_damaged(buffer.getvalue(), chance))
        _refused_or_right(path, work)


def test_damaged_indexes(tmp_path: Path, sharded: Callable[..., Path]) -> None:
    chance = random.Random(3)
    shards = [{"a.weight": torch.randn(4, 4)}, {"b.weight": torch.randn(4, 4)}]
    folder = sharded("model", shards, {"model_type": "llama"})
    index = folder / "model.safetensors.index.json"
    data = index.read_bytes()
    refused = 0
    for _ in range(500):
        index.write_bytes(_damaged(data, chance))
        try:
            prune_file(folder, tmp_path / "out.safetensors", "2:4t", ignore=[], durable=False, force=True)
        except FileError as error:
            _check_line(error)
            refused += 1
        assert not list(tmp_path.glob("*.partial*"))
    assert refused > 300


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        ({"a.weight": "../secret.safetensors"}, "not a .safetensors file of this folder"),
        ({"a.weight": "/etc/passwd"}, "not a .safetensors file of this folder"),
        ({"a.weight": "sub/x.safetensors"}, "not a .safetensors file of this folder"),
        ({"a.weight": "x\0.safetensors"}, "not a .safetensors file of this folder"),
        ({"a.weight": "missing.safetensors"}, "No such file"),
        ({"z.weight": "model-00001-of-00001.safetensors"}, "which does not hold it"),
        ({"a.weight": 3}, "no weight_map"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_hostile_indexes(sharded: Callable[..., Path], placed: object, reason: str) -> None:
    folder = sharded("model", [{"a.weight": torch.ones(4, 4)}], {})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(folder)


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(Path(os.environ["PWNED"])),))


def test_pickles_that_would_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWNED", str(tmp_path / "pwned"))
    torch.save({"a.weight": torch.ones(4, 4), "x": _Runs()}, tmp_path / "zip.pt")
    torch.save({"x": _Runs()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Runs(), protocol=2))
    for name in ("zip.pt", "legacy.pt"):
        with pytest.raises(CheckpointError, match=r"would run code \(posix.mkdir\)"):
            prune_file(tmp_path / name, tmp_path / "out.pt", "2:4")
    with pytest.raises(CheckpointError, match=r"plain\.pt"):
        inspect_file(tmp_path / "plain.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["legacy.pt", "plain.pt", "zip.pt"]


def test_pickles_that_claim_too_much(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.ones(300, 300)}, buffer, _use_new_zipfile_serialization=False)
    # 90000 elements, written as a four-byte integer, become two thousand million.
    small, huge = (90000).to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "x.pt").write_bytes(buffer.getvalue().replace(small, huge))
    with pytest.raises(CheckpointError, match="claims a tensor of 2147483647 elements"):
        open_checkpoint(tmp_path / "x.pt")
    torch.save({"a.weight": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match="expanded view"):
        open_checkpoint(tmp_path / "wide.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="records are compressed"):
        open_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": {"b": 1}}, "no model that can be found"),
        ([torch.ones(2)], "no tensors"),
        (
            {"one": {"a.weight": torch.ones(2, 2)}, "two": {"a.weight": torch.ones(2, 2)}},
            "no model that can be found",
        ),
        ({"a.b": torch.ones(2), "a": {"b": torch.ones(2)}}, "two tensors"),
    ],
)
def test_pickles_without_a_model(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(tmp_path / "x.pt")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, reason in {
        "empty.pt": "is empty",
        "text.pt": "no pickle of tensors",
        "text.txt": "unknown suffix",
        "folder": "holds neither",
        "pipe.safetensors": "neither a file nor a folder",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            open_checkpoint(tmp_path / name)
