"""A classifier that reads an image row by row."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LstmClassifier", "lstm_classifier"]


class LstmClassifier(nn.Module):
    """Two LSTM layers read the rows from top to bottom; a Linear layer classifies the last hidden state."""

    def __init__(self, hidden: int = 128, features: int = 28, layers: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, layers)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, rows, features) or (n, rows, features) -> (n, classes) logits; states start at 0."""
        rows = x.flatten(1, -2)  # (n, rows, features)
        states, _ = self.lstm(rows.transpose(0, 1).contiguous())  # (rows, n, hidden)
        logits: Tensor = self.classifier(states[-1])
        return logits


def lstm_classifier(
    hidden: int = 128, features: int = 28, layers: int = 2, classes: int = 10
) -> LstmClassifier:
    """An untrained classifier; 128 and 256 hidden units are LSTM-a and LSTM-b of the source.

    Source: Liu et al. 2020 (arXiv 2005.06870), section 4.
    """
    return LstmClassifier(hidden, features, layers, classes)
