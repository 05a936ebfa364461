from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.kernel_theory.networks import problem, two_layer

from bisparse.kernel_theory import KernelRegression, gradient_kernel, network_kernel_regression


def kernels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(30, 40)), rng.normal(size=(10, 40))
    return A @ A.T, B @ A.T, rng.normal(size=(30, 2))


def test_equal_to_scikit_learn() -> None:
    ridge = pytest.importorskip("sklearn.kernel_ridge")
    K, cross, y = kernels()
    for targets in (y, y[:, 0]):
        ours = KernelRegression(alpha=0.7).fit(K, targets)
        theirs = ridge.KernelRidge(alpha=0.7, kernel="precomputed").fit(K, targets)
        np.testing.assert_allclose(ours.predict(cross), theirs.predict(cross), rtol=1e-10)
        np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=1e-9)
        assert ours.score(K, targets) == pytest.approx(theirs.score(K, targets))


def test_cross_validation_and_grid_search() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    ridge = pytest.importorskip("sklearn.kernel_ridge")
    K, _, y = kernels()
    ours = selection.cross_val_score(KernelRegression(alpha=3.0), K, y[:, 0], cv=3)
    theirs = selection.cross_val_score(ridge.KernelRidge(alpha=3.0, kernel="precomputed"), K, y[:, 0], cv=3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    search = selection.GridSearchCV(KernelRegression(), {"alpha": [0.0, 1.0, 100.0]}, cv=3).fit(K, y)
    assert search.best_params_["alpha"] in (0.0, 1.0, 100.0)


def test_constant_outputs_score_as_in_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    K, cross, y = kernels()
    y[:, 1] = 3.0
    fitted = KernelRegression(alpha=1.0).fit(K, y)
    truth = np.column_stack([y[:10, 0], np.full(10, 3.0)])
    assert fitted.score(cross, truth) == pytest.approx(metrics.r2_score(truth, fitted.predict(cross)))
    exact = KernelRegression().fit(np.eye(3), np.ones(3))
    assert exact.score(np.eye(3), np.ones(3)) == 1.0


def test_ridgeless_is_the_interpolant_of_least_norm() -> None:
    K, _, y = kernels()
    fitted = KernelRegression().fit(torch.from_numpy(K), torch.from_numpy(y))
    torch.testing.assert_close(fitted.predict(torch.from_numpy(K)), torch.from_numpy(y))
    low = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    assert KernelRegression().fit(low, torch.tensor([2.0, 3.0, 5.0])).predict(low).tolist() == [2.0, 3.0, 0.0]


def test_refusals() -> None:
    K, cross, y = kernels()
    with pytest.raises(ValueError, match="not fitted"):
        KernelRegression().predict(cross)
    with pytest.raises(ValueError, match="alpha"):
        KernelRegression(-1.0).fit(K, y)
    with pytest.raises(ValueError, match="one target per row"):
        KernelRegression().fit(K, y[:5])
    with pytest.raises(ValueError, match="unknown parameter"):
        KernelRegression().set_params(gamma=1)


def test_a_networks_kernel_predicts_held_out_examples() -> None:
    X, y, Z = problem(20, 4)
    model = two_layer(4, 30)
    K, cross = gradient_kernel(model, X), gradient_kernel(model, Z, X)
    expected = cross @ torch.linalg.solve(K + 0.5 * torch.eye(20), y)
    torch.testing.assert_close(network_kernel_regression(model, X, y, Z, alpha=0.5), expected)
    features = network_kernel_regression(model, X, y, X, kernel="feature")
    torch.testing.assert_close(features, y, rtol=1e-6, atol=1e-6)  # 30 features interpolate 20 examples
    with pytest.raises(ValueError, match="'gradient' or 'feature'"):
        network_kernel_regression(model, X, y, Z, kernel="linear")  # type: ignore[arg-type]
