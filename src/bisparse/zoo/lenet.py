"""LeNet-300-100 and LeNet-5, the two small networks of the pruning literature."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LeNet5", "lenet5", "lenet_300_100"]


class LeNet5(nn.Module):
    """The Caffe version: 20 and 50 filters of 5 x 5, max pooling after each, 500 hidden units; 431 080 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 28, 28) -> (n, classes) logits."""
        x = F.max_pool2d(self.conv1(x), 2)  # (n, 20, 12, 12); Caffe has no ReLU after its convolutions
        x = F.max_pool2d(self.conv2(x), 2)  # (n, 50, 4, 4)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


def lenet5(classes: int = 10) -> LeNet5:
    """An untrained LeNet-5.

    Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998; sizes as in Caffe's
    ``lenet_train_test.prototxt``.
    """
    return LeNet5(classes)


def lenet_300_100(features: int = 784, classes: int = 10) -> nn.Sequential:
    """An untrained network of Linear layers with 300 and 100 hidden units, 266 610 parameters; takes (n, ...)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
