"""Runs of the kernel benchmark."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from bisparse.bench.adaptive_cases import MaskedCase
from bisparse.bench.adaptive_masks import diversities, make_masks
from bisparse.bench.adaptive_subjects import HIDDEN, Subject, mnist_images, tuned_accuracy
from bisparse.bench.ledger import Row
from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.mask_quality import mask_quality
from bisparse.kernel_theory.regression import KernelRegression
from bisparse.kernel_theory.tracker import SpectrumReport, SpectrumTracker
from bisparse.machine import describe_machine

__all__ = ["run_masked_case", "run_pair"]

EXAMPLES = 120
_PAIR_STEPS = (0, 50, 200, 800, 3200)
_RIDGES = tuple(10.0**power for power in range(-6, 1))


def run_masked_case(case: MaskedCase, subject: Subject, model: nn.Sequential) -> Row:
    """Judge the masks of one case, then train with them.

    Args:
        case: which.
        subject: its data.
        model: its dense network (``subject.network(case.regime, case.seed)``); left as it is.

    Returns:
        The case's columns, ``accuracy`` after training, every measure, ``seconds``, ``machine``.
    """
    started = time.perf_counter()
    X, y = subject.data.train_inputs[:EXAMPLES], subject.data.train_labels[:EXAMPLES]
    masks = make_masks(model, HIDDEN, case.pattern, case.choice, X, case.seed)
    quality = mask_quality(model, masks, X, y)
    paper, true = diversities(case.pattern, [tuple(mask.shape) for mask in masks.values()])
    return case.row() | {
        "accuracy": tuned_accuracy(subject, model, masks, regime=case.regime, seed=case.seed),
        "diversity_paper": paper,
        "diversity_exact": true,
        "kept_magnitude": quality.kept_magnitude,
        "kept_trace": quality.kept_trace,
        "rank": quality.rank,
        "effective_dimension": quality.effective_dimension,
        "alignment": quality.alignment,
        "y_inside": 1.0 - quality.y_outside,
        "y_fitted": 1.0 - quality.y_left,
        "density": quality.density,
        "seconds": round(time.perf_counter() - started, 2),
        "machine": describe_machine(),
    }


def run_pair(
    pair: tuple[int, int], *, examples: int = 200, width: int = 100
) -> tuple[list[Row], SpectrumReport]:
    """Train a two-layer ReLU network on two digits of MNIST by gradient descent, and look at its kernels.

    Squared loss on labels ±1, full batches. At every look: held-out error of the network, and of ridge regression
    with its kernel now and with its kernel at the start, the ridge chosen on 500 other training images.

    Args:
        pair: two digits.
        examples: for training; up to 1000 for the test.
        width: of the hidden layer.

    Returns:
        A row per look, and the snapshots.
    """
    images, labels = _pair("train", pair, examples + 500)
    X, y, tuning = images[:examples], labels[:examples], (images[examples:], labels[examples:])
    test = _pair("t10k", pair, 1000)
    torch.manual_seed(0)
    layers = [nn.Linear(X.shape[1], width, bias=False), nn.ReLU(), nn.Linear(width, 1, bias=False)]
    model = nn.Sequential(*layers).double()
    tracker, rows, done = SpectrumTracker(X, y, top=50), list[Row](), 0
    initial = _kernel_outputs(model, X, y, tuning, test[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in _PAIR_STEPS:
        for _ in range(step - done):
            optimizer.zero_grad()
            ((model(X)[:, 0] - y).square().mean() / 2).backward()
            optimizer.step()
        done, snapshot = step, tracker.observe(model, step)
        row: Row = {
            "pair": f"{pair[0]} {pair[1]}",
            "step": step,
            "alignment": snapshot.alignment,
            "cka_start": snapshot.cka_start,
            "decay": snapshot.decay,
            "stable_rank": snapshot.stable_rank,
            "machine": describe_machine(),
        }
        adaptive = initial if step == 0 else _kernel_outputs(model, X, y, tuning, test[0])
        outputs = {"network": model(test[0])[:, 0].detach(), "adaptive": adaptive, "initial": initial}
        for name, given in outputs.items():
            row[f"error_{name}"] = _error(given, test[1])
            row[f"mse_{name}"] = float((given - test[1]).square().mean())
        rows.append(row)
    return rows, tracker.report()


def _kernel_outputs(
    model: nn.Module, X: Tensor, y: Tensor, tuning: tuple[Tensor, Tensor], Z: Tensor
) -> Tensor:
    """Kernel ridge regression with the ridge that errs least on the tuning examples."""
    K, other, cross = (gradient_kernel(model, *inputs) for inputs in ((X,), (tuning[0], X), (Z, X)))
    scale = float(K.trace()) / len(K)
    fitted = [KernelRegression(scale * ridge).fit(K, y) for ridge in _RIDGES]
    best = min(fitted, key=lambda one: float((one.predict(other) - tuning[1]).square().mean()))
    outputs: Tensor = best.predict(cross)
    return outputs


def _pair(part: str, pair: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Images of two digits in float64, with labels 1 and -1."""
    images, labels = mnist_images(part)
    chosen = ((labels == pair[0]) | (labels == pair[1])).nonzero()[:count, 0]
    return images[chosen].double(), 1.0 - 2.0 * (labels[chosen] == pair[1]).double()


def _error(outputs: Tensor, truth: Tensor) -> float:
    """Share of wrong signs."""
    return float((outputs.sign() != truth.sign()).double().mean())
