"""Tiny models and data in the forms of the large ones: a ResNet, a BERT, images in folders, questions with answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["the", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "who", "where", "?", "."]


def make_images(folder: Path, *, classes: int = 2, count: int = 12) -> None:
    """Images of one colour per class, train and val."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for part in ("train", "val"):
        for label in range(classes):
            place = folder / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(0, 60, (20, 24, 3), generator=generator)
                noise[..., label] += 150
                Image.fromarray(noise.byte().numpy()).save(place / f"{number}.png")


def make_resnet(folder: Path) -> None:
    """The folder of a tiny ``ResNetForImageClassification``."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=2,
    )  # fmt: skip
    ResNetForImageClassification(config).save_pretrained(folder)


def make_tokenizer(folder: Path) -> None:
    """A fast word-piece tokenizer of a dozen words."""
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def make_bert(folder: Path, kind: str = "BertForQuestionAnswering") -> None:
    """The folder of a tiny BERT with its tokenizer."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    getattr(transformers, kind)(config).save_pretrained(folder)
    make_tokenizer(folder)


def question(number: int) -> dict[str, Any]:
    """Who did what where: the answer is the animal."""
    animal = ("cat", "dog")[number % 2]
    context = f"the {animal} {('sat', 'ran')[number // 2 % 2]} {('on', 'under')[number // 4 % 2]} the mat ."
    return {"question": "who ?", "context": context, "answers": {"text": [animal], "answer_start": [4]}}


def make_questions(folder: Path, count: int = 40) -> None:
    """SQuAD's form, saved by ``save_to_disk``."""
    from datasets import Dataset, DatasetDict

    rows = [question(number) for number in range(count)]
    DatasetDict({"train": Dataset.from_list(rows), "validation": Dataset.from_list(rows[:8])}).save_to_disk(
        folder
    )
