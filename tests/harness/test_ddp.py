"""Two processes give what one gives: by Lightning's flags and under torchrun, on real gloo.

With a backbone and a head without batch norm, whose statistics torch synchronises on GPUs only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.tracking import read_metrics
from tests.harness.commands import environment, harness, harness_process

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
Command = Callable[..., subprocess.CompletedProcess[str]]


def by_torchrun(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "harness", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


def run(command: Command, folder: Path, *overrides: str) -> Path:
    folder.mkdir()
    done = command(*ASKED, *overrides, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kNN %") == 1  # the first process alone prints
    (found,) = (folder / "outputs" / "banks").iterdir()
    return found


@pytest.mark.parametrize("bank", BANKS)
def test_two_processes_give_the_metrics_of_one(tmp_path: Path, bank: str) -> None:
    one = run(harness, tmp_path / "one", *BANKS[bank])
    command = by_torchrun if bank == "smc" else harness_process
    two = run(command, tmp_path / "two", *BANKS[bank], "trainer.devices=2")
    expected, found = read_metrics(one / "metrics.csv"), read_metrics(two / "metrics.csv")
    assert len(expected) == len(found) == 2 * 21 + 2
    for row, other in zip(expected, found, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=5e-3)
    results = [json.loads((path / "results.json").read_text())["metrics"] for path in (one, two)]
    assert results[1] == pytest.approx(results[0], rel=0.02, abs=0.01)
