"""How numbers are shown, against NumPy and the names that are measured."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics import CURVES, METRICS, Metric, metric

VALUES = [0.5012, 0.4987, 0.52]


@pytest.mark.parametrize(("scale", "decimals"), [(1.0, 2), (100.0, 1), (100.0, 0)])
def test_a_cell_is_the_mean_and_the_sample_standard_deviation(scale: float, decimals: int) -> None:
    shown = Metric("accuracy", "accuracy %", scale, decimals)
    mean, std = np.mean(VALUES) * scale, np.std(VALUES, ddof=1) * scale
    assert shown.mean_and_std(VALUES) == f"{mean:.{decimals}f} ± {std:.{decimals}f}"
    assert shown.mean_and_std(VALUES, decimals=3) == f"{mean:.3f} ± {std:.3f}"
    assert shown.mean_and_std(VALUES[:1]) == shown.text(VALUES[0])
    assert shown.mean_and_std([]) == "—"


def test_a_name_that_the_table_does_not_have_is_shown_all_the_same() -> None:
    assert metric("linear_accuracy") is METRICS["linear_accuracy"]
    shown = metric("new_score")
    assert (shown.label, shown.text(0.12345)) == ("new score", "0.123")


def test_every_name_is_in_the_table_once_and_only_columns_are_drawn() -> None:
    assert all(name == shown.name for name, shown in METRICS.items())
    assert all(column.partition("/")[0] in ("train", "bank", "eval") for column in CURVES)
    assert not any(METRICS[column].is_accuracy for column in CURVES)
