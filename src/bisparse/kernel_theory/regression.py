"""Kernel ridge and ridgeless regression with a precomputed kernel or a network's own, as scikit-learn does it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.features import feature_kernel
from bisparse.kernel_theory.gradient_kernel import gradient_kernel
from bisparse.kernel_theory.spectrum import spectrum

__all__ = ["KernelRegression", "network_kernel_regression"]


class KernelRegression:
    """f(x) = k(x, X)(K + alpha)⁻¹ y, or k(x, X) K⁺ y for alpha 0 (ridgeless: the interpolant of least norm).

    Follows scikit-learn's conventions with a precomputed kernel: constructor arguments are kept as given, ``fit``
    returns the estimator, fitted attributes end in an underscore, ``clone``, cross-validation and grid search
    work. scikit-learn itself is not needed; unlike its ``KernelRidge`` this one takes alpha 0 and singular kernels.

    Args:
        alpha: the ridge, on the scale of the kernel: n times the penalty of a mean of squares.
        rtol: eigenvalues up to ``rtol`` times the largest count as zero where alpha is 0; ``None`` = 10 n times the
            dtype's precision.
    """

    def __init__(self, alpha: float = 0.0, rtol: float | None = None) -> None:
        self.alpha = alpha
        self.rtol = rtol

    def fit(self, K: Any, y: Any) -> KernelRegression:
        """Solve for the coefficients; cost n³.

        Args:
            K: (n, n) kernel of the training examples, tensor or array.
            y: (n,) or (n, C) targets.

        Raises:
            ValueError: shapes do not fit, alpha is negative, or the kernel is not symmetric.
        """
        kernel, targets = _tensor(K), _tensor(y)
        if self.alpha < 0:
            raise ValueError(f"alpha={self.alpha}: must be 0 or more")
        if len(targets) != len(kernel):
            raise ValueError(
                f"{len(targets)} targets for a kernel of {tuple(kernel.shape)}: one target per row"
            )
        self.spectrum_ = spectrum(kernel, self.rtol)
        columns = targets.to(kernel).reshape(len(targets), -1)
        self.dual_coef_ = self.spectrum_.solve(columns, self.alpha).reshape(targets.shape)
        self.n_features_in_ = len(kernel)
        self._as_tensor = isinstance(K, Tensor)
        return self

    def predict(self, K: Any) -> Any:
        """Predictions (m,) or (m, C) from the kernel (m, n) of new examples with the training examples."""
        if not hasattr(self, "dual_coef_"):
            raise ValueError("not fitted yet: call fit first")
        predictions = _tensor(K).to(self.dual_coef_) @ self.dual_coef_
        return predictions if self._as_tensor else predictions.cpu().numpy()

    def score(self, K: Any, y: Any) -> float:
        """Coefficient of determination R², averaged over outputs; as in scikit-learn, a constant output counts 1
        where it is met exactly, else 0.
        """
        truth = _tensor(y).to(self.dual_coef_)
        error = (truth - _tensor(self.predict(K)).to(truth)).square().sum(0)
        spread = (truth - truth.mean(0)).square().sum(0)
        shares = torch.where(spread > 0, 1.0 - error / spread, (error == 0).to(error))
        return float(shares.mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Constructor arguments by name."""
        return {"alpha": self.alpha, "rtol": self.rtol}

    def set_params(self, **params: Any) -> KernelRegression:
        """Change constructor arguments.

        Raises:
            ValueError: an unknown name.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"unknown parameter {name!r}: alpha and rtol exist")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks: a regressor whose input is a matrix of pairs."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(pairwise=True),
        )


def _tensor(value: Any) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor if tensor.is_floating_point() else tensor.double()


def network_kernel_regression(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    X_test: Tensor,
    *,
    kernel: Literal["gradient", "feature"] = "gradient",
    alpha: float = 0.0,
    rtol: float | None = None,
    dtype: torch.dtype | None = torch.float64,
    **options: Any,
) -> Tensor:
    """Predict held-out examples by the network's own kernel, all outputs sharing the trace kernel.

    Args:
        model: whose kernel is taken; left as it is.
        X: (n, ...) training inputs.
        y: (n,) or (n, C) targets.
        X_test: (m, ...) inputs to predict.
        kernel: ``"gradient"`` or ``"feature"``.
        alpha: the ridge; 0 = ridgeless.
        rtol: see :class:`KernelRegression`.
        dtype: of the computation.
        options: further ones of :func:`gradient_kernel` or :func:`feature_kernel`.

    Returns:
        (m,) or (m, C) predictions.
    """
    compute: Any = {"gradient": gradient_kernel, "feature": feature_kernel}.get(kernel)
    if compute is None:
        raise ValueError(f"kernel={kernel!r}: use 'gradient' or 'feature'")
    own, cross = (compute(model, *inputs, dtype=dtype, **options) for inputs in ((X,), (X_test, X)))
    predictions: Tensor = KernelRegression(alpha, rtol).fit(own, y).predict(cross)
    return predictions
