"""The format: our writer is read by the reference reader and the other way round; everything else is
refused.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bisparse.files import CheckpointError, OutputError, SafetensorsFile
from bisparse.files.safetensors_header import Header, encode_header, parse_header, place_tensors
from bisparse.files.safetensors_types import dtype_name, torch_dtype
from bisparse.files.safetensors_writer import Pending, write_safetensors

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reads_what_the_reference_wrote(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    save_file({"a": tensor, "empty": torch.zeros(0, 5, dtype=dtype)}, tmp_path / "x.safetensors")
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert file.tensor("a").dtype == dtype
        assert torch.equal(file.tensor("a").view(torch.uint8), tensor.view(torch.uint8))
        assert file.tensor("empty").shape == (0, 5)


def test_the_reference_reads_what_we_place(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 5), "b": torch.arange(4, dtype=torch.int16), "s": torch.tensor(2.5)}
    entries = place_tensors((name, dtype_name(t.dtype), tuple(t.shape)) for name, t in tensors.items())
    data = encode_header(Header(entries, {"who": "we ⟂"}))
    assert len(data) % 8 == 0
    data += b"".join(t.reshape(-1).view(torch.uint8).numpy().tobytes() for t in tensors.values())
    (tmp_path / "x.safetensors").write_bytes(data)
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert SafetensorsFile(tmp_path / "x.safetensors").header.metadata == {"who": "we ⟂"}


def test_writing_one_tensor_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wide, narrow = torch.randn(3, 5, dtype=torch.float64), torch.arange(7, dtype=torch.uint8)
    pending = [
        Pending.of("narrow", narrow),
        Pending("wide", torch.float64, (3, 5), lambda: wide),
        Pending.of("s", wide[0, 0]),
    ]
    write_safetensors(path, pending, {"k": "v"})
    read = load_file(path)
    assert torch.equal(read["wide"], wide)
    assert torch.equal(read["narrow"], narrow)
    assert read["s"].shape == ()
    with SafetensorsFile(path) as file:
        assert [entry.name for entry in file.header.entries] == ["wide", "s", "narrow"]
        assert file.header.metadata == {"k": "v"}
    with pytest.raises(OutputError, match="exists"):
        write_safetensors(path, pending)
    write_safetensors(path, [], force=True)
    assert load_file(path) == {}
    with pytest.raises(ValueError, match="'a' is given twice"):
        write_safetensors(tmp_path / "y.safetensors", [Pending.of("a", wide)] * 2)
    with pytest.raises(ValueError, match="was announced as"):
        write_safetensors(tmp_path / "y.safetensors", [Pending("a", torch.float32, (3, 5), lambda: wide)])
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_type_names_round_trip() -> None:
    assert [torch_dtype(dtype_name(dtype)) for dtype in DTYPES] == DTYPES
    assert torch_dtype("F4") is None
    with pytest.raises(ValueError, match=r"no type for torch\.complex128"):
        dtype_name(torch.complex128)


def _file(tmp_path: Path, header: object, data: bytes = bytes(16)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _entry(begin: int, end: int, shape: list[object] | None = None, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [begin, end]}


BAD_HEADERS = {
    "not JSON": b"{nope",
    "not JSON (": b"\xff\xfe",
    "nested too deeply": b"[" * 100_000,
    "not a JSON object": [1, 2],
    "gives a name twice": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
    "metadata is not a map": {"__metadata__": {"x": 1}},
    "lacks dtype": {"a": {"dtype": "F32"}},
    "lacks dtype, shape": {"a": 3},
    "unknown type 'F33'": {"a": _entry(0, 16, dtype="F33")},
    "unknown type '[]'": {"a": {"dtype": [], "shape": [2], "data_offsets": [0, 8]}},
    "no valid shape": {"a": _entry(0, 16, [-2])},
    "no valid shape ": {"a": _entry(0, 16, [True, 4])},
    "no valid shape  ": {"a": _entry(0, 16, [4.0])},
    "no valid shape   ": {"a": _entry(0, 0, [0, 2**40, 2**40])},
    "no valid data_offsets": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**80]}},
    "does not fill bytes": {"a": _entry(0, 12)},
    "does not fill bytes ": {"a": _entry(8, 0)},
    "does not fill": {"a": _entry(0, 16, [2**31])},
    "overlaps 'a'": {"a": _entry(0, 8), "b": _entry(4, 12)},
    "overlaps": {"a": _entry(0, 8), "b": _entry(0, 8)},
    "leaves a hole after 'a'": {"a": _entry(0, 4, [1]), "b": _entry(8, 16)},
    "leaves a hole after 'the header'": {"b": _entry(8, 16)},
    "belong to no tensor": {"a": _entry(0, 8)},
    "truncated: its tensors take 24": {"a": _entry(0, 8), "b": _entry(8, 24, [4])},
    "not valid Unicode": b'{"\\ud800":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "does not fill bytes 0 to 16": {"a": _entry(0, 16, [33], "F4")},
}


@pytest.mark.parametrize("reason", BAD_HEADERS)
def test_refuses_a_wrong_header(tmp_path: Path, reason: str) -> None:
    path = _file(tmp_path, BAD_HEADERS[reason])
    with pytest.raises(CheckpointError, match="is no valid safetensors file") as caught:
        SafetensorsFile(path)
    assert reason.rstrip(" (") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes, not even a header"),
        (b"\1\0\0", "3 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", "the file is shorter"),
        ((100).to_bytes(8, "little") + b"{}", "claims a header of 100 bytes"),
    ],
)
def test_refuses_a_wrong_length(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_absurd_sizes_allocate_nothing(tmp_path: Path) -> None:
    path = _file(tmp_path, {"a": _entry(0, 2**50, [2**48])})
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="truncated"):
        SafetensorsFile(path)
    (tmp_path / "y.safetensors").write_bytes((2**40).to_bytes(8, "little") + bytes(1000))
    with pytest.raises(CheckpointError, match="claims a header"):
        SafetensorsFile(tmp_path / "y.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "x.safetensors")
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        (tmp_path / "x.safetensors").write_bytes(file.header_bytes + bytes(100))
        with pytest.raises(CheckpointError, match="became shorter"):
            file.tensor("a")
        with pytest.raises(KeyError):
            file.entry("b")


def test_blanks_after_the_header_and_sub_byte_types(tmp_path: Path) -> None:
    text = json.dumps({"a": _entry(0, 4, [8], "F4")}).encode() + b"   "
    header = parse_header(text, 4)
    assert header.entries[0].itemsize == 0
    assert header.data_bytes == 4
    with pytest.raises(ValueError, match="whole bytes"):
        place_tensors([("a", "F4", (3,))])
