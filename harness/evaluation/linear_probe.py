"""Linear probe: logistic regression on standardised frozen features, fitted to convergence."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor


def linear_accuracy(
    train_features: Tensor,  # shape: (N, D)
    train_labels: Tensor,  # shape: (N,)
    test_features: Tensor,  # shape: (T, D)
    test_labels: Tensor,  # shape: (T,)
) -> float:
    """Share of test images that the probe classifies correctly.

    scikit-learn's defaults (L2 penalty, C = 1); deterministic. For sets that fit the memory: the
    paper's probe, SGD over augmented images (Huang 2026, App. P.3), is for larger ones.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train_features.cpu().numpy(), train_labels.cpu().numpy())
    return float(probe.score(test_features.cpu().numpy(), test_labels.cpu().numpy()))
