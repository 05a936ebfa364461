"""Local folders of images, texts and questions: what reaches the model, and what is refused."""

from __future__ import annotations

import pytest
import torch

from bisparse.recipes import Recipe, RecipeError
from bisparse.train.objective import own_loss
from bisparse.zoo.hf_datasets import local_dataset
from bisparse.zoo.image_folder import image_folder
from bisparse.zoo.tokens import answer_spans, labelled_texts, load_tokenizer, text_blocks

from .stand_ins import WORDS, make_bert, make_images, make_questions, make_tokenizer, question

FIRST = 5  # codes 0 to 4 are special


def codes(text: str) -> list[int]:
    return [FIRST + WORDS.index(word) for word in text.split()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return load_tokenizer(folder)


def test_images_are_cut_from_the_centre_or_at_random(tmp_path):
    make_images(tmp_path, count=3)
    examples = image_folder(tmp_path / "train", size=8)
    assert (len(examples), examples.classes) == (6, ("class0", "class1"))
    inputs, labels = examples.batch(torch.tensor([0, 5]), None)
    assert inputs.shape == (2, 3, 8, 8)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [0, 1]
    red, green = inputs[0].mean((1, 2))[:2]
    assert red > green + 1.0  # class 0 is red
    again = [examples.batch(torch.tensor([0]), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        image_folder(tmp_path / "none")
    (tmp_path / "class0").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        image_folder(tmp_path)


def test_texts_are_padded_and_cut_to_the_longest(tokenizer):
    table = labelled_texts(tokenizer, [["the cat", "the dog sat on the mat ."]], [1, 0], length=16)
    batch = table.batch(torch.tensor([0]), None)
    assert batch["input_ids"].tolist() == [[2, *codes("the cat"), 3]]
    assert batch["labels"].tolist() == [1]
    both = table.batch(torch.tensor([0, 1]), None)
    assert both["input_ids"].shape == (2, 9)
    assert both["attention_mask"].sum(1).tolist() == [4, 9]


def test_texts_of_a_language_model_are_joined(tokenizer):
    table = text_blocks(tokenizer, ["the cat sat", "the dog"], length=4)
    blocks = table.batch(torch.arange(len(table)), None)
    assert blocks["input_ids"].tolist() == [[2, *codes("the cat sat")], [3, 2, *codes("the dog")]]
    assert torch.equal(blocks["labels"], blocks["input_ids"])
    with pytest.raises(ValueError, match="do not fill one block"):
        text_blocks(tokenizer, ["cat"], length=8)


def test_answers_are_found_in_the_window_that_holds_them(tokenizer):
    rows = {name: [question(0)[name]] for name in ("question", "context", "answers")}
    whole = answer_spans(tokenizer, rows, length=16, stride=2).batch(torch.tensor([0]), None)
    # [CLS] who ? [SEP] the cat ...: the answer is token 5.
    assert (whole["start_positions"].item(), whole["end_positions"].item()) == (5, 5)
    assert whole["input_ids"][0, 5] == codes("cat")[0]
    windows = answer_spans(tokenizer, rows, length=8, stride=1)
    found = windows.batch(torch.arange(len(windows)), None)
    assert len(windows) > 1
    assert found["start_positions"].tolist() == [5, *[0] * (len(windows) - 1)]


def test_an_unanswerable_question_points_at_the_first_token(tokenizer):
    rows = {"question": ["who ?"], "context": ["the mat ."], "answers": [{"text": [], "answer_start": []}]}
    found = answer_spans(tokenizer, rows, length=16, stride=2).batch(torch.tensor([0]), None)
    assert (found["start_positions"].item(), found["end_positions"].item()) == (0, 0)


def test_local_datasets_are_read_or_refused_by_name(tmp_path):
    pytest.importorskip("datasets")
    make_questions(tmp_path / "squad", 12)
    make_bert(tmp_path / "bert")
    assert set(local_dataset(tmp_path / "squad")) == {"train", "validation"}
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        local_dataset(tmp_path / "none")
    data = {
        "name": "datasets", "folder": str(tmp_path / "squad"), "tokenizer": str(tmp_path / "bert"),
        "task": "question-answering", "train": "training",
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"has no split 'training'; it has train, validation"):
        Recipe.of({"model": {"name": "mlp"}, "data": data, "epochs": 1}).data.load()


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_models_with_their_own_loss_count_right_predictions(kind):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    ids = torch.randint(20, (4, 6))
    predicted = model(input_ids=ids).logits.argmax(-1)
    labels = predicted.clone()
    labels[0] = (labels[0] + 1) % 3
    if predicted.dim() == 2:
        labels[1] = -100  # nothing to predict there
    outcome = own_loss(model, {"input_ids": ids, "labels": labels})
    expected = (12, 18) if predicted.dim() == 2 else (3, 4)
    assert (int(outcome.hits), int(outcome.count)) == expected


def test_pairs_and_mappings_are_not_confused():
    from bisparse.train.objective import CrossEntropy

    with pytest.raises(TypeError, match="own_loss"):
        CrossEntropy()(torch.nn.Linear(2, 2), {"x": torch.zeros(1)})
    with pytest.raises(TypeError, match="CrossEntropy"):
        own_loss(torch.nn.Linear(2, 2), (torch.zeros(1, 2), torch.zeros(1)))
