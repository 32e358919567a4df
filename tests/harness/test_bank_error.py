"""The bench of banks' errors, on embeddings whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from harness.__main__ import main
from harness.bench import bank_error
from tests.harness.commands import measured


def embeddings(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, 8, generator=generator), dim=1)


def test_log_partition_and_gradient_against_autograd() -> None:
    queries, points = embeddings(5, 0).double().requires_grad_(), embeddings(30, 1).double()
    log_weights = torch.linspace(-2.0, 1.0, 30).double()
    got, gradient = bank_error.log_partition(queries, points, log_weights, temperature=0.2)
    shares = log_weights.softmax(dim=0)
    expected = (shares * (queries @ points.T / 0.2).exp()).sum(dim=1).log()
    torch.testing.assert_close(got, expected)
    (slope,) = torch.autograd.grad(expected.sum(), queries)
    torch.testing.assert_close(gradient, 0.2 * slope)


@pytest.mark.parametrize("name", ["FIFO", "default"])
def test_a_bank_of_all_images_has_no_error(name: str) -> None:
    keys, queries = embeddings(256, 1), embeddings(20, 2)
    found = bank_error.measure(name, 256, keys, keys, queries, temperature=0.5, epochs=2)
    assert found["distinct"] == 1.0
    assert found["error"] == pytest.approx(0.0, abs=1e-5)
    assert found["gradient_error"] == pytest.approx(0.0, abs=1e-5)


def test_a_small_queue_errs_as_a_random_sample_does() -> None:
    """The delta method: variance of log Z is that of exp(s) over its squared mean, over M."""
    keys, queries = embeddings(20_000, 1), embeddings(50, 2)
    found = bank_error.measure("FIFO", 512, keys, keys, queries, temperature=1.0, epochs=1)
    values = (queries @ keys.T).exp()
    variance = (values.var(dim=1) / values.mean(dim=1).square() / 512).mean()
    assert found["error"] == pytest.approx(math.sqrt(variance), rel=0.15)
    assert abs(found["bias"]) < 0.3 * found["error"]


def test_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["data=digits", "backbone=small_cnn", "trainer.epochs=1", "bank.size=64"]
    asked += [f"output_root={tmp_path / 'runs'}"]
    options = ["--sizes", "64", "--epochs", "1"]
    with pytest.raises(SystemExit) as error:
        measured("bank_error", *asked, *options, folder=tmp_path)
    assert error.value.code == 2
    assert "run python -m harness experiment=banks data=digits" in capsys.readouterr().err
    main(["experiment=banks", "logger=csv", *asked])
    with pytest.raises(SystemExit):
        measured("bank_error", *asked, "--sizes", "64", "1348", "--epochs", "1", folder=tmp_path)
    assert "1348 entries are not full after --epochs of 1347 keys" in capsys.readouterr().err
    rows = measured("bank_error", *asked, *options, folder=tmp_path)["rows"]
    assert [row["bank"] for row in rows] == list(bank_error.BANKS)
    assert all(0.0 < row["error"] < 5.0 for row in rows)
    assert (tmp_path / "new" / "measured.png").stat().st_size > 10_000
