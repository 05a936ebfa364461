"""Readers of images and text: shapes, normalisation, random changes that obey their generator."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from bisparse.zoo.char_text import char_text
from bisparse.zoo.cifar import cifar10_examples
from bisparse.zoo.idx import read_idx
from bisparse.zoo.images import ImageExamples
from bisparse.zoo.mnist import mnist


def idx_bytes(array: np.ndarray, code: int) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, count: int = 6) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.arange(count * 28 * 28, dtype=np.uint8).reshape(count, 28, 28)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images, 8)))
        labels = np.arange(count, dtype=np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels, 8)))


@pytest.mark.parametrize(("dtype", "code"), [(">u1", 8), (">i2", 11), (">i4", 12), (">f4", 13), (">f8", 14)])
def test_idx_of_every_type_is_read_big_endian(tmp_path, dtype, code):
    array = np.array([[1, 2, 3], [4, 5, 100]], dtype=dtype)
    (tmp_path / "a.idx").write_bytes(idx_bytes(array, code))
    assert read_idx(tmp_path / "a.idx").tolist() == array.tolist()


@pytest.mark.parametrize(
    ("content", "message"), [(b"PNG!", "no idx file"), (bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]), "9 bytes|need 9")]
)
def test_what_is_no_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "a.idx")


def test_mnist_is_normalised_and_flattened_on_request(tmp_path):
    write_mnist(tmp_path)
    inputs, labels = mnist("train", folder=tmp_path).batch(torch.tensor([2, 0]), None)
    assert inputs.shape == (2, 1, 28, 28)
    assert labels.tolist() == [2, 0]
    assert inputs[1, 0, 0, 5].item() == pytest.approx((5 / 255 - 0.1307) / 0.3081, rel=1e-5)
    assert mnist("test", folder=tmp_path, flat=True).batch(torch.tensor([1]), None)[0].shape == (1, 784)


def test_random_crops_and_flips_follow_the_generator_and_can_be_checked_by_eye():
    images = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3)
    examples = ImageExamples(images, torch.tensor([0]), (0.0,), (1 / 255,), shift=1, flip=True)
    allowed = set()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))[0, 0]
    for top in range(3):
        for left in range(3):
            crop = padded[top : top + 3, left : left + 3]
            allowed |= {tuple(crop.flatten().tolist()), tuple(crop.flip(1).flatten().tolist())}
    seen = set()
    for seed in range(60):
        pixels, _ = examples.batch(torch.tensor([0]), torch.Generator().manual_seed(seed))
        again, _ = examples.batch(torch.tensor([0]), torch.Generator().manual_seed(seed))
        assert torch.equal(pixels, again)
        seen.add(tuple(pixels.round().int().flatten().tolist()))
    assert len(seen) > 10
    assert seen <= allowed
    unchanged, _ = examples.batch(torch.tensor([0]), None)
    assert unchanged.round().flatten().tolist() == list(range(1, 10))


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        ImageExamples(torch.zeros(2, 3, 4, 4), torch.zeros(2), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="one for each"):
        ImageExamples(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3), (0.0,), (1.0,))


def test_cifar_joins_the_batches_that_are_there(tmp_path):
    folder = tmp_path / "cifar-10-batches-npz"
    folder.mkdir()
    for name, label in (("data_batch_1", 1), ("data_batch_3", 3), ("test_batch", 9)):
        np.savez(folder / name, data=np.full((2, 3072), label, np.uint8), labels=np.full(2, label, np.uint8))
    examples = cifar10_examples("train", folder=tmp_path)
    assert examples.labels.tolist() == [1, 1, 3, 3]
    inputs, _ = examples.batch(torch.tensor([0, 3]), None)
    assert inputs.shape == (2, 3, 32, 32)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert cifar10_examples("test", folder=tmp_path).labels.tolist() == [9, 9]


def test_text_is_cut_into_parts_and_windows(tmp_path):
    text = "abcdefghij" * 20
    (tmp_path / "t.txt").write_text(text)
    train = char_text(tmp_path / "t.txt", length=8)
    inputs, targets = train.batch(torch.tensor([0, 1]), None)
    assert [train.decode(row) for row in inputs] == ["abcdefgh", "ijabcdef"]
    assert [train.decode(row) for row in targets] == ["bcdefghi", "jabcdefg"]
    assert len(train.codes) == 160
    held_out, test = (char_text(tmp_path / "t.txt", part, length=8) for part in ("validation", "test"))
    assert len(held_out.codes) == len(test.codes) == 20
    assert test.alphabet == "abcdefghij"
    with pytest.raises(ValueError, match="two windows"):
        char_text(tmp_path / "t.txt", "test", length=16)


def test_every_window_and_offset_stays_inside_the_text(tmp_path):
    (tmp_path / "t.txt").write_text("abcdefghij" * 11)
    train = char_text(tmp_path / "t.txt", length=8)
    for seed in range(30):
        inputs, targets = train.batch(torch.arange(len(train)), torch.Generator().manual_seed(seed))
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
