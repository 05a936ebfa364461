"""Scikit-learn's handwritten digits: real data that needs no download."""

from __future__ import annotations

import torch

from bisparse.zoo.split import Split

__all__ = ["digits"]


def digits(*, seed: int = 0, test_share: float = 0.25) -> Split:
    """The 1797 handwritten digits of 8 x 8 pixels that ship with scikit-learn, shuffled and divided.

    Args:
        seed: of the shuffle; the same seed gives the same division on every machine.
        test_share: share of the examples, strictly between 0 and 1, that is kept for testing.

    Returns:
        Inputs (n, 64) float32, pixels divided by 16 and centred on 0; labels 0 to 9.

    Raises:
        ImportError: scikit-learn is missing; it comes with the extra ``bisparse[demo]``.
        ValueError: ``test_share`` leaves the training or the test part empty.

    Source: E. Alpaydin and C. Kaynak, UCI Optical Recognition of Handwritten Digits (1998), test part.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits ship with scikit-learn: pip install 'bisparse[demo]'") from error
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"test_share={test_share}: must lie strictly between 0 and 1")
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    inputs = torch.from_numpy(images).float()[order] / 16.0 - 0.5
    targets = torch.from_numpy(labels).long()[order]
    test = round(test_share * len(labels))
    if test in (0, len(labels)):
        raise ValueError(f"test_share={test_share} of {len(labels)} examples leaves one part empty")
    return Split(inputs[test:], targets[test:], inputs[:test], targets[:test])
