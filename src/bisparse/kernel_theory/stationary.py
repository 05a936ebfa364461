"""Training to a stationary point of the penalised squared loss, where the theorems hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.masked import Masks, resolve_masks

__all__ = ["fit_stationary_"]


def fit_stationary_(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    penalty: float = 0.0,
    masks: Masks = None,
    tolerance: float = 1e-8,
    steps: int = 5000,
) -> float:
    """Minimise |y - f(X)|²/(2 n) + penalty/2 |θ|² by L-BFGS over the whole batch, in place.

    For small regression problems in float64. Masked entries are set to zero and stay there. A network with kinks
    (plain ReLU) may stall at one: the certificate of :func:`kernel_report` still says how far it is.

    Args:
        model: trained in place, in evaluation mode while it trains.
        X: (n, ...) inputs.
        y: (n,) or (n, C) targets.
        penalty: of all parameters that require a gradient.
        masks: see :func:`gradient_kernel`.
        tolerance: largest entry of the gradient at which to stop.
        steps: most iterations.

    Returns:
        Norm of the gradient at the end.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kept = {
        name: mask.to(X.device) for name, mask in resolve_masks(model, masks).items() if name in parameters
    }
    for name, mask in kept.items():
        parameters[name].data.mul_(mask)
    values = list(parameters.values())
    optimizer = torch.optim.LBFGS(
        values, max_iter=steps, max_eval=2 * steps, tolerance_grad=tolerance, tolerance_change=1e-18,
        history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (model(X).reshape(len(X), -1) - y.reshape(len(X), -1)).square().sum() / (2 * len(X))
        loss = loss + penalty / 2 * torch.stack([p.square().sum() for p in values]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, mask in kept.items():
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        return loss

    was_training = model.training
    model.eval()
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    closure()
    norm = torch.stack([p.grad.square().sum() for p in values if p.grad is not None]).sum().sqrt()
    optimizer.zero_grad()
    model.train(was_training)
    return float(norm)
