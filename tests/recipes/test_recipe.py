"""Recipes: every mistake is told with its key and its choices; what is right is built as written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bisparse.pattern import parse_pattern
from bisparse.recipes import Recipe, RecipeError, load_recipe, shipped_recipes
from bisparse.recipes.run import make_sparsifier
from bisparse.recipes.yaml_text import parse_yaml
from bisparse.train import RULES, ErdosRenyi, Fraction, Importance, Newborn, RigL, SrSte
from bisparse.train.topology import DROPS, GROWS, REDISTRIBUTIONS, TOPOLOGIES

SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "options": {"widths": [64, 16, 10]}},
    "data": {"name": "digits"},
    "pattern": "2:4t",
    "epochs": 1,
}


def with_key(path: str, value: Any) -> dict[str, Any]:
    recipe = {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in SMALL.items()}
    *sections, last = path.split(".")
    place = recipe
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return recipe


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "pattren",
            "2:4",
            r"pattren: unknown key. Did you mean 'pattern'\? Known keys: allocation, batch, data",
        ),
        ("optimizer.momentm", 0.9, r"optimizer.momentm: unknown key. Did you mean 'momentum'"),
        ("data.augmnt", True, r"data.augmnt: unknown key. Known keys: held_out, name"),
        ("data.name", "imagenet", r"data.name: 'imagenet' is not one of 'digits', 'mnist'"),
        ("data", {}, "data.name: missing"),
        ("optimizer.name", "adagrad", r"optimizer.name: 'adagrad' is not one of 'sgd', 'adam' or 'adamw'"),
        ("epochs", "ten", r"epochs: expected an integer, got 'ten' \(str\)"),
        ("epochs", True, r"epochs: expected an integer, got True \(bool\)"),
        ("epochs", 0, "epochs: .*greater than or equal to 1.*got 0"),
        ("optimizer.lr", "fast", r"optimizer.lr: expected a number, got 'fast' \(str\)"),
        ("pattern", "5:4", "pattern: .*keep must be smaller than block"),
        ("pattern", 248, "pattern: expected a pattern such as 4:8t, or a mapping .*got 248"),
        ("rule", "srste", "rule.name: 'srste' is not one of 'hard', 'ste', 's-ste'"),
        ("rule", {"name": "ste", "decay": 1.0}, "rule.decay: unknown key. Known keys: name"),
        ("schedule.evry", 3, "schedule.evry: unknown key. Did you mean 'every'"),
        (
            "topology",
            {"name": "projection", "method": "guess"},
            "topology.method: 'guess' is not one of 'exact'",
        ),
        ("loop.precision", "float8", "loop.precision: 'float8' is not one of 'float32'"),
        ("model.name", 3, "model.name: expected a text, got 3"),
    ],
)
def test_every_mistake_names_its_key_and_the_choices(path, value, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.of(with_key(path, value))
    assert len(str(caught.value).splitlines()) == 2


def test_all_mistakes_are_told_at_once():
    wrong = {**SMALL, "epochs": "x", "seeed": 1, "data": {"name": "digits", "held_out": 1.5}}
    with pytest.raises(RecipeError) as caught:
        Recipe.of(wrong, "my.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "my.yaml:"
    assert {line.strip().split(":")[0] for line in lines[1:]} == {"epochs", "seeed", "data.held_out"}


def test_what_is_missing_is_named():
    with pytest.raises(RecipeError, match=r"(?s)model: missing.*data: missing.*epochs: missing"):
        Recipe.of({})


def test_sparse_keys_without_a_pattern_are_refused():
    with pytest.raises(RecipeError, match="rule: without effect unless there is a pattern"):
        Recipe.of({**SMALL, "pattern": None, "rule": "ste"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("2:4", "2:4"), ("4:8t", "4:8t"), ("1e-3", 1e-3), ("-.5", -0.5), ("7", 7), ("no", "no"), ("true", True),
     ("~", None), ("[1, 2.0]", [1, 2.0]), ("1_0", "1_0"), ("'3'", "3")],
)  # fmt: skip
def test_yaml_reads_what_people_mean(text, value):
    found = parse_yaml(text, "text")
    assert found == value
    assert type(found) is type(value)


def test_a_key_given_twice_is_an_error():
    with pytest.raises(RecipeError, match="epochs is given twice"):
        parse_yaml("epochs: 1\nepochs: 2\n", "x.yaml")


def test_broken_yaml_names_the_file():
    with pytest.raises(RecipeError, match=r"x\.yaml"):
        parse_yaml("a: [1", "x.yaml")


def test_single_keys_can_be_changed(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(Recipe.of(SMALL).to_yaml())
    changed = load_recipe(
        path, ["pattern=1:4", "optimizer.lr=5e-2", "rule=hard", "schedule.every=7", "batch=~"]
    )
    assert (changed.pattern, changed.optimizer.lr, changed.rule.name) == ("1:4", 0.05, "hard")
    assert (changed.schedule.every, changed.batch) == (7, 128)
    decayed = load_recipe(path, ["rule=sr-ste", "rule.decay=0.1"])
    assert decayed.rule.build() == SrSte(0.1)
    with pytest.raises(RecipeError, match="write key=value"):
        load_recipe(path, ["batch"])


def test_unknown_recipes_name_the_known_ones():
    with pytest.raises(RecipeError, match=r"neither a file nor one of the recipes .*digits-dynamic"):
        load_recipe("digits-dynamc")


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_survive_writing(name):
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.output == f"runs/{name}"
    assert Recipe.of(parse_yaml(recipe.to_yaml(), name)) == recipe


def test_a_sparsifier_is_built_as_written():
    recipe = Recipe.of(
        {
            **SMALL,
            "pattern": {"0": "2:4", "*": "4:8t"},
            "rule": {"name": "sr-ste", "decay": 1e-3, "mode": "decoupled"},
            "schedule": {"every": 5, "freeze": 50, "ramp": {"begin": 0, "end": 20}},
            "topology": {"name": "projection", "method": "greedy", "hysteresis": 0.1},
            "ignore": [],
        }
    )
    made = make_sparsifier(recipe, 100)
    assert made is not None
    assert (made.rule, made.topology.method, made.topology.hysteresis) == (
        SrSte(1e-3, "decoupled"),
        "greedy",
        0.1,
    )
    assert (made.schedule.every, made.schedule.freeze, made.schedule.ramp.end) == (5, 50, 20)
    made.prepare(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)))
    patterns = [weight.pattern for weight in made.weights.values()]
    assert patterns == [parse_pattern("2:4"), parse_pattern("4:8t")]


def sparse(**keys: Any) -> dict[str, Any]:
    return {**SMALL, "pattern": "unstructured:0.9", **keys}


def test_topologies_are_built_as_written():
    recipe = Recipe.of(
        sparse(
            topology={
                "name": "rigl",
                "drop": "taylor",
                "grow": "random-unfired",
                "redistribute": "magnitude",
                "fraction": 0.5,
                "floor": 0.01,
                "newborn": "he",
                "first": "magnitude",
                "neurons": {"start": 3, "every": None},
            },
            allocation={"name": "er", "power": 0.5},
            schedule={"every": 5, "until": 0.75},
            seed=7,
        )
    )
    made = make_sparsifier(recipe, 200)
    assert made is not None
    assert made.schedule.freeze == 150
    assert made.rule == RULES["hard"]
    assert made.allocation == ErdosRenyi(kernel=False, power=0.5)
    assert made.topology == RigL(
        drop=DROPS["taylor"],
        grow=GROWS["random-unfired"],
        redistribute=REDISTRIBUTIONS["magnitude"],
        fraction=Fraction(0.5, "cosine", 0.01, end=150),
        newborn=Newborn("he"),
        first="magnitude",
        neurons=Importance(3, None),
        seed=7,
        schedule=made.schedule,
    )


@pytest.mark.parametrize("name", ["set", "rigl", "snfs", "static", "evolve"])
def test_a_name_alone_takes_everything_from_its_method(name):
    made = make_sparsifier(Recipe.of(sparse(topology=name, schedule={"until": 0.5}, allocation="erk")), 10)
    assert made is not None
    assert made.topology == TOPOLOGIES[name].under(made.schedule)
    assert made.allocation == ErdosRenyi()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"topology": "sett"}, "topology.name: 'sett' is not one of 'projection', 'set', 'rigl', 'snfs'"),
        ({"topology": {"name": "set", "grow": "up"}}, "topology.grow: 'up' is not one of 'random'"),
        (
            {"topology": {"name": "set", "fractoin": 0.1}},
            "topology.fractoin: unknown key. Did you mean 'fraction'",
        ),
        (
            {"topology": {"name": "set", "fraction": 2.0}},
            "topology.fraction: .*less than or equal to 1.*got 2.0",
        ),
        ({"topology": {"name": "static", "drop": "taylor"}}, "drop: without effect on static masks"),
        ({"topology": {"name": "set", "neurons": {"share": 1.0}}}, "topology.neurons.share: .*less than 1"),
        ({"topology": "rigl"}, "schedule: what rigl exchanges falls to an end; name it, until: 0.75"),
        (
            {"topology": "set", "rule": "sr-ste"},
            "rule: set masks forget what they drop, which only hard does",
        ),
        ({"schedule": {"until": 0.5, "freeze": 3}}, "freeze and until both say when masks stay"),
        ({"allocation": "erdos"}, "allocation.name: 'erdos' is not one of 'uniform', 'er' or 'erk'"),
        ({"allocation": {"name": "uniform", "eps": 3.0}}, "eps: without effect on uniform"),
        (
            {"allocation": "erk", "pattern": "2:4t"},
            "allocation: erk divides unstructured sparsity, but pattern is 2:4t",
        ),
        ({"allocation": {"name": "er", "eps": 20.0}}, "allocation: eps says how many weights stay"),
    ],
)
def test_mistakes_of_evolving_recipes_are_told(keys, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.of(sparse(**keys))


def test_static_means_that_masks_never_change():
    assert Recipe.of({**SMALL, "schedule": "static"}).schedule.freeze == 0


class TestModels:
    def test_weights_depend_on_the_seed_only(self):
        section = Recipe.of(SMALL).model
        one, two, other = (
            section.build(3),
            section.build(3),
            Recipe.of(with_key("model.name", "lenet-300-100")),
        )
        assert torch.equal(one[0].weight, two[0].weight)
        with pytest.raises(RecipeError, match=r"model.options: .*widths"):
            other.model.build(0)

    def test_entry_points_take_options(self):
        built = Recipe.of(
            {**SMALL, "model": {"name": "torch.nn:Linear", "options": {"in_features": 3, "out_features": 2}}}
        )
        assert built.model.build(0).weight.shape == (2, 3)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("resnet21", "not one of mlp"),
            ("torch.nn:Nothing", "Nothing"),
            ("builtins:dict", "gives a dict"),
        ],
    )
    def test_what_is_no_model_is_refused(self, name, message):
        with pytest.raises(RecipeError, match=message):
            Recipe.of({**SMALL, "model": {"name": name}}).model.build(0)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_weights_are_loaded_from_files(self, tmp_path, suffix):
        from safetensors.torch import save_file

        section = Recipe.of(SMALL).model
        state = section.build(5).state_dict()
        if suffix == ".pt":
            torch.save(
                {"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt"
            )
        else:
            save_file(state, tmp_path / "w.safetensors")
        loaded = section.model_copy(update={"weights": str(tmp_path / f"w{suffix}")}).build(0)
        assert torch.equal(loaded[0].weight, state["0.weight"])
        with pytest.raises(RecipeError, match=r"model\.weights"):
            Recipe.of({**SMALL, "model": {**SMALL["model"], "weights": "none.pt"}}).model.build(0)
