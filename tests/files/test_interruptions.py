"""Nothing is lost: killed at any moment, out of disk, interrupted, two at a time; the result is the same."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bisparse.files import DiskFullError, OutputError, prune_file
from bisparse.files import stream as stream_module
from bisparse.files.journal import Journal
from bisparse.files.partial import reserve


def _tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layers.{seed}{i}.weight": torch.randn(24, 16, generator=generator) for i in range(5)}
    return tensors | {f"layers.{seed}{i}.bias": torch.randn(24, generator=generator) for i in range(2)}


@pytest.fixture
def inputs(tmp_path: Path, sharded: Callable[..., Path]) -> Path:
    """One input of every kind; in the file, one tensor of several blocks."""
    big = torch.randn(1400, 1024, generator=torch.Generator().manual_seed(1))
    save_file(_tensors(1) | {"big.weight": big}, tmp_path / "in.safetensors")
    torch.save({"state_dict": _tensors(1), "epoch": 3}, tmp_path / "in.pt")
    sharded("in", [_tensors(1), _tensors(2)], {"model_type": "llama"})
    sparse = [_sparse(1), _sparse(2)]
    save_file(sparse[0] | {"big.weight": torch.where(big > 2.2, big, 0)}, tmp_path / "sparse.safetensors")
    sharded("sparse", sparse, {"model_type": "llama"})
    return tmp_path


INPUTS = ["in", "in.pt", "in.safetensors", "sparse", "sparse.safetensors"]


def _sparse(seed: int) -> dict[str, torch.Tensor]:
    """2:4 along the inputs, large enough to be packed."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(48, 32, generator=generator) for _ in range(3)]
    for weight in weights:
        weight.view(-1, 4)[:, ::2] = 0
    return {f"layers.{seed}{i}.weight": weight for i, weight in enumerate(weights)}


def _killed(inputs: Path, random_kills: int, modes: list[str]) -> None:
    server = Path(__file__).with_name("kill_server.py")
    command = [sys.executable, str(server), str(inputs), str(random_kills), *modes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == modes
    assert all(int(calls) > 10 for _, calls in lines), done.stdout


def test_killed_at_every_call_and_at_random_times(inputs: Path) -> None:
    _killed(inputs, 7, ["file", "over", "folder", "in_place", "pickle"])


def test_packing_is_killed_as_well(inputs: Path) -> None:
    _killed(inputs, 2, ["pack_file", "pack_folder"])


class _FullDisk:
    """Fails the writes of data after some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, code: int) -> None:
        self._real = os.pwrite
        self._left = after
        self._code = code
        monkeypatch.setattr(stream_module.os, "pwrite", self)

    def __call__(self, fd: int, data: bytes, position: int) -> int:
        self._left -= 1
        if self._left < 0 and len(data) > 1000:
            raise OSError(self._code, os.strerror(self._code))
        return self._real(fd, data, position)


@pytest.mark.parametrize(
    ("code", "line"),
    [(errno.ENOSPC, "the disk is full"), (errno.EFBIG, "a limit on file sizes"), (errno.EIO, "error")],
)
def test_a_disk_that_fills_up(
    inputs: Path, digest: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch, code: int, line: str
) -> None:
    source, output = inputs / "in.safetensors", inputs / "out.safetensors"
    prune_file(source, inputs / "reference.safetensors", "4:8t")
    monkeypatch.setitem(stream_module.write_stream.__kwdefaults__, "interval", 0.0)
    with monkeypatch.context() as broken:
        _FullDisk(broken, 6, code)
        with pytest.raises(OutputError, match=rf"{line}.*run the same command again to go on") as caught:
            prune_file(source, output, "4:8t", threads=1)
    assert isinstance(caught.value, DiskFullError) == (code != errno.EIO)
    assert not output.exists()
    report = prune_file(source, output, "4:8t")
    assert any("went on with an interrupted run after" in note for note in report.notes)
    assert digest(output) == digest(inputs / "reference.safetensors")
    assert not list(inputs.glob("*.partial*"))
    # Sums of blocks done before the interruption count in the report.
    reference = prune_file(source, inputs / "again.safetensors", "4:8t")
    assert report.kept_magnitude == pytest.approx(reference.kept_magnitude, rel=1e-12)


def test_space_is_reserved_before_any_work(tmp_path: Path) -> None:
    with (
        (tmp_path / "x").open("wb") as file,
        pytest.raises(DiskFullError, match=r"needs 9,2\d\d,.* bytes and"),
    ):
        reserve(file.fileno(), 2**63 - 1, tmp_path / "x")


def test_a_pickle_on_a_full_disk(inputs: Path) -> None:
    code = (
        "import resource, signal, sys; from bisparse.files import prune_file, DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "for out in sys.argv[2:]:\n"
        "    try: prune_file(sys.argv[1], out, '2:4')\n"
        "    except DiskFullError as error: print(error)\n"
    )
    outputs = [str(inputs / "out.pt"), str(inputs / "out.safetensors"), str(inputs / "outdir")]
    command = [sys.executable, "-c", code, str(inputs / "in.pt"), *outputs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    assert done.stdout.count("a limit on file sizes") == 3
    assert sorted(p.name for p in inputs.iterdir()) == INPUTS


def test_ctrl_c_keeps_what_is_done(inputs: Path, digest: Callable[[Path], str]) -> None:
    source, output = inputs / "in.safetensors", inputs / "out.safetensors"

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_file(source, output, "4:8t", threads=1, progress=interrupt)
    assert output.with_name("out.safetensors.partial").exists()
    starts: list[int] = []
    prune_file(source, output, "4:8t", progress=lambda done, total: starts.append(done))
    prune_file(source, inputs / "reference.safetensors", "4:8t")
    assert digest(output) == digest(inputs / "reference.safetensors")
    assert starts[0] > 2_000_000


def test_other_options_or_another_input_start_anew(inputs: Path, digest: Callable[[Path], str]) -> None:
    source, output = inputs / "in.safetensors", inputs / "out.safetensors"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for change in ("pattern", "input"):
        with pytest.raises(KeyboardInterrupt):
            prune_file(source, output, "4:8t", progress=stop, force=True)
        if change == "input":
            save_file(_tensors(1) | {"big.weight": torch.ones(1400, 1024)}, source)
        pattern = "2:4" if change == "pattern" else "4:8t"
        prune_file(source, output, pattern, force=True)
        prune_file(source, inputs / "reference.safetensors", pattern, force=True)
        assert digest(output) == digest(inputs / "reference.safetensors")


def test_two_runs_at_a_time(inputs: Path) -> None:
    source, output = inputs / "in.safetensors", inputs / "out.safetensors"

    def second(done: int, total: int) -> None:
        with pytest.raises(OutputError, match="another run is writing this output"):
            prune_file(source, output, "4:8t")

    assert prune_file(source, output, "4:8t", progress=second).pruned


def test_files_of_others_are_not_touched(inputs: Path) -> None:
    source, output = inputs / "in.safetensors", inputs / "out.safetensors"
    theirs = inputs / "out.safetensors.partial"
    theirs.write_text("mine")
    with pytest.raises(OutputError, match="in the way and was not left by bisparse"):
        prune_file(source, output, "4:8t")
    assert theirs.read_text() == "mine"
    theirs.unlink()
    journal = inputs / "out.safetensors.partial.journal"
    journal.write_text("my diary")
    with pytest.raises(OutputError, match="is no journal of bisparse"):
        prune_file(source, output, "4:8t")
    assert journal.read_text() == "my diary"
    journal.unlink()
    assert sorted(p.name for p in inputs.iterdir()) == INPUTS


def test_where_nothing_can_be_written(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = inputs / "in.safetensors"
    with pytest.raises(OutputError, match="there is no folder"):
        prune_file(source, inputs / "missing" / "out.safetensors", "4:8t")
    with pytest.raises(OutputError, match="cannot write /proc/self/out"):
        prune_file(source, "/proc/self/out.safetensors", "4:8t")

    def read_only(path: object, flags: int, *rest: object, **options: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **options)  # type: ignore[arg-type]

    real = os.open
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OutputError, match="Read-only file system"):
        prune_file(source, inputs / "out.safetensors", "4:8t")


def test_a_torn_journal_is_believed_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    journal = Journal(path)
    assert journal.new
    journal.start("abc")
    journal.record(2, [[1.5], []])
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"done": 3, "su')
    journal = Journal(path)
    assert (journal.fingerprint, journal.done, journal.sums, journal.complete) == (
        "abc",
        2,
        [[1.5], []],
        False,
    )
    journal.record(3, [[2.5]])
    journal.finish()
    journal.close()
    assert [json.loads(line) for line in path.read_text().splitlines()][-2:] == [
        {"done": 3, "sums": [[2.5]]},
        {"complete": True},
    ]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        assert journal.done in (0, 2)
        journal.close(remove=True)
    assert not path.exists()
    shutil.rmtree(tmp_path)
