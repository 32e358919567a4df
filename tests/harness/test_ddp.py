"""Two processes give what one gives: by Lightning's flags and under torchrun, on real gloo.

With a backbone and a head without batch norm, whose statistics torch synchronises on GPUs only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking import read_metrics
from tests.harness.commands import environment

ASKED = [
    "experiment=banks",
    "data=digits",
    "trainer=quickstart",
    "trainer.epochs=2",
    "backbone=timm",
    "backbone.name=test_vit",
    "bank.size=150",
    "method.learning_rate=0.003",
    "logger=csv",
]
BANKS = {
    "fifo": ["bank=fifo"],
    "smc": ["bank=smc", "method.in_batch_negatives=true"],
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def run(folder: Path, *overrides: str, launcher: list[str] = []) -> Path:  # noqa: B006
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "harness", *ASKED, *overrides],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("knn_accuracy") == 1  # the first process alone prints
    (found,) = (folder / "outputs" / "banks").iterdir()
    return found


@pytest.mark.parametrize("bank", BANKS)
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, bank: str) -> None:
    one = run(tmp_path / "one", *BANKS[bank])
    two = run(
        tmp_path / "two",
        *BANKS[bank],
        "trainer.devices=2",
        launcher=TORCHRUN if bank == "smc" else [],
    )
    expected, found = read_metrics(one / "metrics.csv"), read_metrics(two / "metrics.csv")
    assert len(expected) == len(found) == 2 * 21 + 2
    for row, other in zip(expected, found, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=5e-3)
    results = [json.loads((path / "results.json").read_text())["metrics"] for path in (one, two)]
    assert results[1] == pytest.approx(results[0], rel=0.02, abs=0.01)
