"""Rounds of pruning and retraining, stopped and taken up again; the command line."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from bisparse.cli.app import app
from bisparse.filters import FilterPlan, apply_plan_, load_plan, prune_and_retrain_, save_plan
from bisparse.filters.cascade import _text
from bisparse.zoo.mlp import mlp

DATA = list(torch.rand(48, 12, generator=torch.Generator().manual_seed(3)).split(16))


def network() -> nn.Module:
    return mlp((12, 40, 24, 5), seed=1).eval()


def nudge(model: nn.Module, folder: Path | None, plan: FilterPlan) -> None:
    """Stands for training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)


def test_shares_are_geometric_and_retraining_follows_every_round() -> None:
    model, calls = network(), list[int]()
    before = sum(p.numel() for p in model.parameters())
    report = prune_and_retrain_(
        model,
        "params:0.25",
        lambda net, *_: calls.append(sum(p.numel() for p in net.parameters())),
        calibration=DATA,
        rounds=2,
        samples=8,
    )
    assert [round(step.keep, 6) for step in report.rounds] == [0.5, 0.25]
    assert calls == [step.parameters for step in report.rounds]
    assert calls[0] <= 0.5 * before
    assert calls[1] <= 0.25 * before


def test_every_round_knows_what_is_left_of_the_original_model() -> None:
    seen, fresh = list[FilterPlan](), list[nn.Module]()

    def retrain(model: nn.Module, folder: Path | None, plan: FilterPlan) -> None:
        seen.append(plan)
        fresh.append(apply_plan_(network(), plan))
        for name, tensor in fresh[-1].state_dict().items():
            assert tensor.shape == model.state_dict()[name].shape

    model = network()
    report = prune_and_retrain_(
        model, "params:0.25", retrain, calibration=DATA, rounds=2, scores="l1", samples=None
    )
    assert seen[0] == report.plans[0]
    assert len(seen[1].kept["0.weight"][0]) < len(seen[0].kept["0.weight"][0])
    # Nothing was changed but the widths, so the original's weights at the kept places are the small model's.
    assert all(
        torch.equal(one, other) for one, other in zip(fresh[1].parameters(), model.parameters(), strict=True)
    )


class Heads(nn.Module):
    """As many heads as each has numbers; the model names both."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = 4, 4
        self.query, self.key, self.value = (nn.Linear(12, 16) for _ in range(3))
        self.out = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], -1, self.attention_head_size)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = x + self.out(mixed.reshape(*x.shape[:-1], -1))
        return out


def test_heads_go_round_by_round_and_keep_their_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Heads().eval(), [torch.randn(8, 5, 12)]
    whole, seen = copy.deepcopy(model), list[FilterPlan]()

    def retrain(net: nn.Module, folder: Path | None, plan: FilterPlan) -> None:
        fresh = apply_plan_(copy.deepcopy(whole), load_plan(save_plan(plan, tmp_path / "plan.json")))
        assert torch.equal(fresh(data[0]), net(data[0]))  # nothing was changed but the widths
        seen.append(plan)

    prune_and_retrain_(model, "params:0.35", retrain, calibration=data, rounds=2, scores="l1")
    assert [plan.attributes for plan in seen] == [
        {"": {"num_attention_heads": 2}},
        {"": {"num_attention_heads": 1}},
    ]
    assert (model.num_attention_heads, model.attention_head_size) == (1, 4)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2])
def test_a_stopped_cascade_goes_on(tmp_path: Path, stop: int) -> None:
    whole = network()
    prune_and_retrain_(whole, "params:0.3", nudge, calibration=DATA, rounds=2, samples=8)
    count = 0

    def interrupted(model: nn.Module, folder: Path | None, plan: FilterPlan) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise StoppedError
        nudge(model, folder, plan)

    options = {"calibration": DATA, "rounds": 2, "samples": 8, "folder": tmp_path / "run"}
    with pytest.raises(StoppedError):
        prune_and_retrain_(network(), "params:0.3", interrupted, **options)  # type: ignore[arg-type]
    again = network()
    report = prune_and_retrain_(again, "params:0.3", nudge, **options)  # type: ignore[arg-type]
    assert len(report.rounds) == 2
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(ValueError, match="holds another cascade"):
        prune_and_retrain_(network(), "params:0.5", nudge, **options)  # type: ignore[arg-type]


def test_settings_are_the_same_words_in_the_next_process() -> None:
    def made_anew() -> object:
        def loss(model: nn.Module, batch: object) -> float:
            return 0.0

        return loss

    first, second = made_anew(), made_anew()
    assert repr(first) != repr(second)
    assert _text({"loss": first, "targets": [first, nn.Linear]}) == _text(
        {"targets": [second, nn.Linear], "loss": second}
    )
    assert _text({"loss": first}) != _text({"loss": nn.Linear})


def test_filters_then_a_pattern_as_one_recipe() -> None:
    model = network()
    report = prune_and_retrain_(model, "params:0.6", nudge, calibration=DATA, then="2:4", samples=8)
    assert report.pattern is not None
    assert report.pattern.density == 0.5
    assert isinstance(model, nn.Sequential)
    assert len(model[0].weight) % 4 == 0  # type: ignore[arg-type]
    groups = model[2].weight.detach().unflatten(1, (-1, 4))  # type: ignore[operator, union-attr]
    assert int((groups != 0).sum(-1).max()) <= 2


def test_a_cascade_without_retraining_is_refused() -> None:
    with pytest.raises(TypeError, match="retrain is a NoneType: pass a function"):
        prune_and_retrain_(network(), "params:0.6", None, calibration=DATA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a model, a folder and a plan: too many .* take all three"):
        prune_and_retrain_(network(), "params:0.6", lambda net, folder: None, calibration=DATA)  # type: ignore[arg-type, misc]
    with pytest.raises(ValueError, match="take a multiple of 4"):
        prune_and_retrain_(network(), "params:0.6", nudge, calibration=DATA, then="2:4", multiple=2)


def test_the_command_writes_checkpoint_plan_report_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(
        "from bisparse.zoo.mlp import mlp\n"
        "def build():\n    return mlp((12, 40, 24, 5), seed=1)\n"
        "def size(model):\n    return float(sum(p.numel() for p in model.parameters()))\n",
        encoding="utf-8",
    )
    np.save(tmp_path / "x.npy", torch.cat(DATA).numpy())
    monkeypatch.chdir(tmp_path)
    arguments = (
        "filters --model nets:build -c x.npy -b params:0.6 -o small.pt --evaluate nets:size --no-latency"
    )
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0, result.output
    assert "params:0.6" in result.output
    assert {"small.pt", "small.pt.plan.json", "small.pt.report.json"} <= {p.name for p in tmp_path.iterdir()}
    model = apply_plan_(network(), load_plan("small.pt.plan.json"))
    model.load_state_dict(torch.load("small.pt", weights_only=True))
    assert CliRunner().invoke(app, arguments.split()).exit_code == 2  # it exists
    larger = CliRunner().invoke(app, [*arguments.replace("small.pt", "next.pt").split(), "-w", "small.pt"])
    assert larger.exit_code == 2
    assert "build with apply_plan_(build(), load_plan('small.pt.plan.json'))" in " ".join(
        larger.output.split()
    )
    again = CliRunner().invoke(app, [*arguments.split(), "--force", "--then", "2:4", "--json"])
    assert again.exit_code == 0, again.output
    assert '"density of 2 weights at 2:4": 0.5' in again.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("-b params:0", "lies between 0 and 1"),
        ("-o folder", "cannot describe"),
        ("-b flops", "write RESOURCE"),
        ("--then 2:4 --multiple 6", "leave multiple= out, or take a multiple of 4"),
        ("--model bisparse.zoo.lenet:lenet5 -c torch:pi", "is one float"),
        ("--no-latency", "is called without arguments: missing a required argument: 'widths'"),
        ("--model bisparse.zoo.lenet:lenet5 --then 2:4 --selection random", "widths are no multiples of 4"),
        pytest.param(
            "--model bisparse.zoo.lenet:lenet5 --device cuda",
            "cannot use device 'cuda'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_wrong_commands_end_in_one_line(tmp_path: Path, change: str, message: str) -> None:
    np.save(tmp_path / "x.npy", torch.cat(DATA).numpy())
    arguments = (
        f"filters --model bisparse.zoo.mlp:mlp -c {tmp_path}/x.npy -b params:0.6 -o {tmp_path}/s.pt {change}"
    )
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
