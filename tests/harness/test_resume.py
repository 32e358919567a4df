"""A training killed at any moment goes on by the same command, to the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness import wandb_file
from tests.harness.commands import environment, harness

SIZE = [
    "data=digits",
    "backbone=small_cnn",
    "trainer=quickstart",
    "trainer.epochs=6",
    "trainer.log_every=3",
]
ASKED = ["experiment=banks", "bank.size=100", *SIZE]
KILLED = -9


def outcome(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Metrics, the last checkpoint and the final figures of the one run below a folder."""
    (run,) = (folder / "outputs").glob("*/*")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    results = json.loads((run / "results.json").read_text())
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt"}
    return (run / "metrics.csv").read_text(), checkpoint, results["metrics"]


def assert_same(first: Any, second: Any, path: str = "") -> None:
    """Two nests of containers are equal, tensors to the bit."""
    assert type(first) is type(second), path
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_same(first[key], second[key], f"{path}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path
        for place, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{path}[{place}]")
    else:
        assert first == second, path


STATE = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "backbone")


CASES = {
    "fifo": ["experiment=banks", "bank.size=100", "bank=fifo"],
    "smc_paper": ["experiment=banks", "bank.size=100", "bank=smc_paper"],
    "gmje_mdn": ["experiment=benchmark", "method=gmje_mdn"],
}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_and_while_a_checkpoint_is_written(tmp_path: Path, case: str) -> None:
    asked = [*CASES[case], *SIZE, "logger=csv"]
    moments = random.Random(case)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert harness(*asked, folder=whole).returncode == 0
    kills: list[dict[str, Any]] = [
        {"killed_at_checkpoint": 1},
        {"killed_at_checkpoint": 2},
        {"killed_after": moments.uniform(0.3, 1.2)},
    ]
    statuses = [harness(*asked, folder=broken, **kill).returncode for kill in kills]
    assert statuses[:2] == [KILLED] * 2
    assert set(statuses[2:]) <= {KILLED, 0}  # a fast machine may finish before its moment
    assert harness(*asked, folder=broken).returncode == 0
    metrics, checkpoint, found = outcome(broken)
    expected_metrics, expected_checkpoint, expected = outcome(whole)
    assert metrics == expected_metrics
    for part in STATE:
        assert_same(checkpoint[part], expected_checkpoint[part], part)
    assert found == expected


def test_a_resumed_wandb_run_has_every_row_once(tmp_path: Path) -> None:
    assert harness(*ASKED, folder=tmp_path, killed_at_checkpoint=3).returncode == KILLED
    assert harness(*ASKED, folder=tmp_path).returncode == 0
    (folder,) = (tmp_path / "outputs" / "banks").iterdir()
    (run,) = wandb_file.read_all(folder).values()
    losses = [row["trainer/global_step"] for row in run.history if "train/loss" in row]
    assert losses == list(range(0, 6 * 21, 3))
    assert json.loads((folder / "results.json").read_text())["resumed_at_step"] == 2 * 21


def test_a_folder_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    asked = [*ASKED, "logger=csv", "trainer.epochs=1"]
    assert harness(*asked, folder=tmp_path).returncode == 0
    (folder,) = (tmp_path / "outputs" / "banks").iterdir()
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 64", "batch_size: 32"))
    done = harness(*asked, folder=tmp_path)
    assert done.returncode == 2
    assert "trainer.batch_size: 32 there, 64 asked" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_no_success(tmp_path: Path, sent: signal.Signals) -> None:
    """As a cluster's preemption, ``timeout`` or Ctrl-C sends it."""
    command = [sys.executable, "-m", "harness", *ASKED, "logger=csv", "trainer.epochs=1000"]
    started = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        # What runs in the background of a script inherits that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, sent, signal.SIG_DFL),
    )
    checkpoints = "outputs/banks/*/checkpoints/last.ckpt"
    while started.poll() is None and not list(tmp_path.glob(checkpoints)):
        time.sleep(0.1)
    started.send_signal(sent)
    _, told = started.communicate()
    assert started.returncode == 128 + sent
    assert told.decode().strip().endswith(f"ended by {sent.name}; the same command goes on")
