"""Readers and pretrained networks; real data are needed for all but the first tests."""

from __future__ import annotations

import pytest
import torch

from bisparse.zoo.cifar import cifar10
from bisparse.zoo.folder import data_file
from bisparse.zoo.llama import Llama, LlamaConfig, pretrained_llama
from bisparse.zoo.resnet_cifar import pretrained_resnet, resnet_cifar
from bisparse.zoo.tinystories import StoryTokenizer, language_loss, tinystories


def needs(name: str) -> pytest.MarkDecorator:
    try:
        data_file(name)
    except FileNotFoundError as error:
        return pytest.mark.skip(reason=str(error))
    return pytest.mark.data


def test_missing_files_name_the_variable(tmp_path):
    with pytest.raises(FileNotFoundError, match="BISPARSE_DATA"):
        data_file("nothing.npz", tmp_path)


def test_shapes_of_untrained_networks():
    assert resnet_cifar(8)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(ValueError, match="6 n"):
        resnet_cifar(21)
    with pytest.raises(ValueError, match="checkpoints exist"):
        pretrained_resnet(56)
    assert sum(p.numel() for p in resnet_cifar(20).parameters()) == 269722


def test_the_future_does_not_reach_the_past():
    torch.manual_seed(0)
    model = Llama(
        LlamaConfig(dim=16, hidden_dim=20, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=11)
    ).eval()
    ids = torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = 0
    with torch.no_grad():
        first, second = model(ids), model(changed)
    assert first.shape == (2, 9, 11)
    torch.testing.assert_close(first[:, :5], second[:, :5])
    assert not torch.allclose(first[:, 5:], second[:, 5:])


@needs("cifar-10-batches-npz/test_batch.npz")
def test_resnet_recognises_images():
    images, labels = cifar10("test_batch", 200)
    assert images.shape == (200, 3, 32, 32)
    with torch.no_grad():
        hits = pretrained_resnet(20)(images).argmax(1) == labels
    assert int(hits.sum()) >= 175


@needs("tinyllama/stories260K.pt")
def test_llama_reads_stories():
    ids, mask = tinystories(length=64, count=8)
    assert ids.shape == mask.shape == (8, 64)
    assert 0.9 < language_loss(pretrained_llama(), ids, mask) < 1.2


@needs("tinyllama/tok512.bin")
def test_tokens_join_to_the_text():
    tokenizer = StoryTokenizer(data_file("tinyllama/tok512.bin"))
    ids = tokenizer.encode("Lily saw a dög.\n")
    assert ids[0] == 1
    pieces = [tokenizer.tokens[i] if i >= 259 else bytes([i - 3]) for i in ids[1:]]
    assert b"".join(pieces).decode() == " Lily saw a dög.\n"
    assert tokenizer.encode("") == [1]
