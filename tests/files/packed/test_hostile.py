"""Damaged and hostile packed files are refused with one line, before memory of the claimed size is allocated."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import bisparse as bs
from bisparse.files import CheckpointError, FileError, unpack_file

Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def _weights() -> dict[str, Tensor]:
    """One tensor of every coding; the 2:4 one has a tail and negative zeros."""
    generator = torch.Generator().manual_seed(0)
    random_ = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    nm, masked, bitmask, csr = random_(32, 30), random_(32, 64).bfloat16(), random_(24, 70), random_(24, 300)
    nm = torch.where(bs.solve_mask(nm.abs(), "2:4").mask, nm, -0.0)
    masked = torch.where(bs.solve_mask(masked.float().abs(), "16:32").mask, masked, 0)
    bitmask[random_(24, 70) < 0.5] = 0
    csr[random_(24, 300) < 2.2] = 0
    return {"nm": nm, "wide": masked, "bitmask": bitmask, "csr": csr, "bias": random_(5)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "good.safetensors"
    report = bs.save_packed(_weights(), path, durable=False)
    assert {t.name: t.coding for t in report.tensors} == {
        "nm": "2:4", "wide": "16:32", "bitmask": "bitmask", "csr": "csr", "bias": "dense"
    }  # fmt: skip
    return path


def _rewritten(packed: Path, output: Path, change: Change) -> Path:
    """The same file with another description or other stored tensors."""
    with safe_open(packed, "pt") as file:
        metadata = dict(file.metadata())
    described, tensors = json.loads(metadata["bisparse.packed"]), load_file(packed)
    change(described, tensors)
    save_file(tensors, output, metadata=metadata | {"bisparse.packed": json.dumps(described)})
    return output


def _set(name: str, **fields: object) -> Change:
    return lambda described, _: described["tensors"][name].update(fields)


def _poke(name: str, index: int, value: int) -> Change:
    """Overwrite one number of a stored tensor."""

    def change(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[index] = value

    return change


def _resized(name: str) -> Change:
    def change(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name][1:].clone()

    return change


def _retyped(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    tensors["nm.packed.index"] = tensors["nm.packed.index"].view(torch.int8)


def _missing(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    del tensors["csr.packed.rows"]


def _twice(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    tensors["nm"] = torch.ones(32, 30)


def _version(described: dict[str, Any], _: dict[str, Tensor]) -> None:
    described["version"] = 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_version, "version 2, and this bisparse reads version 1"),
        (lambda described, _: described.pop("tensors"), "has no tensors"),
        (_set("nm", shape=[32, 2**40]), "must be F32"),
        (_set("nm", shape=[2**33, 2**33]), "more entries than any file"),
        (_set("nm", shape=[32]), "no valid shape"),
        (_set("nm", shape=[32, 0]), "no valid shape"),
        (_set("nm", shape=[32, -30]), "no valid shape"),
        (_set("nm", shape=[32, 30.0]), "no valid shape"),
        (_set("nm", shape="big"), "no valid shape"),
        (_set("nm", dtype="BF16"), "must be BF16"),
        (_set("nm", dtype="F4"), "never packed"),
        (_set("nm", dtype=7), "never packed"),
        (_set("nm", keep=3), "must be F32"),
        (_set("nm", keep=4), "impossible pattern"),
        (_set("nm", keep=0), "impossible pattern"),
        (_set("nm", keep=True), "impossible pattern"),
        (_set("nm", block=64), "impossible pattern"),
        (_set("nm", block=None), "impossible pattern"),
        (_set("nm", axis=2), "impossible pattern"),
        (_set("nm", axis=0), "must be"),
        (_set("nm", nonzeros=3), "impossible pattern"),
        (_set("nm", coding="zip"), "unknown coding"),
        (_set("nm", coding="csr"), "cannot have"),
        (_set("nm", signs="yes"), "cannot have"),
        (_set("nm", run="me"), "not one of this version"),
        (_set("bitmask", nonzeros=10**9), "impossible number"),
        (_set("bitmask", nonzeros=3), "must be F32"),
        (_set("csr", shape=[24, 2**31]), "1024 times as large"),
        (_set("csr", shape=[24, 2**33]), "too long for csr"),
        (_missing, "lacks its rows"),
        (_twice, "stored twice"),
        (_retyped, "must be U8"),
        (_resized("nm.packed.index"), "must be U8"),
        (_resized("nm.packed.values"), "must be F32"),
        (_poke("nm.packed.index", 0, 255), "but 2:4 has 6"),
        (_poke("wide.packed.index", 3, 255), "16:32 has 601080390"),
        (_poke("nm.packed.signs", -1, 255), "behind the"),
        (_poke("bitmask.packed.index", 0, 0), "do not hold 549"),
        (_poke("csr.packed.index", 2, 60000), "its rows have 300"),
        (_poke("csr.packed.index", 0, 299), "not in order"),
        (_poke("csr.packed.rows", 1, 2**31), "do not hold"),
        (_poke("csr.packed.rows", 0, 1), "do not hold"),
        (_poke("csr.packed.rows", -1, 0), "do not hold"),
    ],
)  # fmt: skip
def test_lies_are_refused(packed: Path, tmp_path: Path, change: Change, reason: str) -> None:
    path = _rewritten(packed, tmp_path / "bad.safetensors", change)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=reason) as refusal:
        bs.load_packed(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(refusal.value)
    assert peak < 20_000_000


def test_values_behind_the_edge_are_refused(tmp_path: Path) -> None:
    """The last group of a row of 30 has two entries; a number that keeps others is a lie."""
    weight = torch.ones(64, 30)
    weight[:, ::2] = 0
    bs.save_packed({"w": weight}, tmp_path / "good.safetensors", pattern="2:4", durable=False)

    def change(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        index = tensors["w.packed.index"][0].numpy()
        bits = np.unpackbits(index, bitorder="little")
        bits[21:24] = [1, 0, 1]  # number 5: the third and fourth of the eighth group
        tensors["w.packed.index"][0] = torch.from_numpy(np.packbits(bits, bitorder="little"))

    path = _rewritten(tmp_path / "good.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(CheckpointError, match="behind the edge"):
        bs.load_packed(path)


def test_descriptions_that_are_no_json(tmp_path: Path) -> None:
    for text in (
        "",
        "[" * 100_000,
        "[]",
        "3",
        '{"version": 1, "tensors": []}',
        '{"version": 1, "tensors": {"w": 1}}',
    ):
        save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"bisparse.packed": text})
        with pytest.raises(CheckpointError, match="no valid packed file"):
            bs.load_packed(tmp_path / "x.safetensors")


def _outcome(path: Path) -> bool:
    """False where it is refused with one line; any error but our own fails the test."""
    try:
        bs.load_packed(path, threads=1)
    except FileError as error:
        return "\n" in str(error) or len(str(error)) > 600
    return True


def test_damaged_files(packed: Path, tmp_path: Path) -> None:
    chance, data, path = random.Random(0), packed.read_bytes(), tmp_path / "x.safetensors"
    loaded = 0
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(damaged)) if chance.random() < 0.5 else chance.randrange(1500)
            kind = chance.randrange(4)
            if kind == 0:
                damaged[place] ^= 1 << chance.randrange(8)
            elif kind == 1:
                damaged[place : place + 8] = chance.randrange(2**64).to_bytes(8, "little")
            elif kind == 2:
                damaged[place] = chance.choice(b"0123456789[]{},")
            else:
                del damaged[place : place + chance.choice([1, 8, 1000])]
        path.write_bytes(bytes(damaged))
        loaded += _outcome(path)
    assert 0 < loaded < 1000


def test_damaged_descriptions(packed: Path, tmp_path: Path) -> None:
    """The description stays JSON and says something else; the number of refusals shows that the checks work."""
    chance, loaded = random.Random(1), 0
    values: list[object] = [0, 1, 2, 3, 4, 8, 16, 24, 30, 32, 64, -1, 2**31, 2**62, 2**64, 1.5, None, "F32", "csr",
                            "bitmask", [], [32, 30], [32, 64], {}, True]  # fmt: skip
    for _ in range(600):

        def change(described: dict[str, Any], _: dict[str, Tensor]) -> None:
            for _ in range(chance.randint(1, 3)):
                fields = chance.choice(list(described["tensors"].values()))
                key = chance.choice(
                    ["dtype", "shape", "coding", "keep", "block", "axis", "nonzeros", "signs"]
                )
                if key == "shape" and chance.random() < 0.7 and fields.get("shape"):
                    fields["shape"] = [*fields["shape"][:-1], chance.choice(values)]
                else:
                    fields[key] = chance.choice(values)

        try:
            path = _rewritten(packed, tmp_path / "x.safetensors", change)
        except (TypeError, AttributeError):
            continue
        loaded += _outcome(path)
    assert loaded < 200


def test_a_corrupt_input_leaves_no_output(packed: Path, tmp_path: Path) -> None:
    path = _rewritten(packed, tmp_path / "bad.safetensors", _poke("nm.packed.index", 0, 255))
    with pytest.raises(CheckpointError, match="but 2:4 has 6"):
        unpack_file(path, tmp_path / "out.safetensors", durable=False)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.safetensors"]
