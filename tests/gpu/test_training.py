"""A training of the harness on a GPU: what the CPU gives, killed and resumed, compiled, in bf16."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
ACCELERATOR = "cuda"
ROOT = Path(__file__).parents[2]
TINY = ["experiment=benchmark", "data=digits", "backbone=small_cnn", "trainer.batch_size=128"]


def train(folder: Path, *options: str, accelerator: str = ACCELERATOR) -> dict[str, float]:
    command = [sys.executable, "-m", "harness", *TINY, f"trainer.accelerator={accelerator}"]
    command += ["logger=csv", "trainer.epochs=2", f"output_root={folder}", *options]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (results,) = folder.rglob("results.json")
    metrics: dict[str, float] = json.loads(results.read_text())["metrics"]
    return metrics


METHODS = ("simclr", "moco", "smc_gmje", "nnclr", "byol", "swav", "vicreg")
OURS = ("gje_entropy", "parametric_gmje", "gmje_mdn")


@pytest.mark.parametrize("method", [*METHODS, *OURS])
def test_a_training_ends_near_the_cpus(method: str, tmp_path: Path) -> None:
    """Views and weights are the same on both; rounding is not."""
    option = f"method={method}"
    expected = train(tmp_path / "cpu", option, accelerator="cpu")
    got = train(tmp_path / "gpu", option)
    assert got.keys() == expected.keys()
    for name in ("knn_accuracy", "linear_accuracy"):
        assert got[name] == pytest.approx(expected[name], abs=0.05)


def test_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "method=smc_gmje")
    script = (
        "import sys, harness.__main__ as m, pytorch_lightning as pl\n"
        "end = pl.LightningModule.on_train_epoch_start\n"
        "from harness.methods.modules.base import Method\n"
        "start = Method.on_train_epoch_start\n"
        "def stop(self):\n"
        "    if self.current_epoch == 1: raise KeyboardInterrupt\n"
        "    start(self)\n"
        "Method.on_train_epoch_start = stop\n"
        "m.main(sys.argv[1:])\n"
    )
    options = ["method=smc_gmje", "trainer.epochs=2", f"output_root={tmp_path / 'cut'}"]
    options += ["logger=csv", f"trainer.accelerator={ACCELERATOR}"]
    command = [sys.executable, "-c", script, *TINY, *options]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 130
    again = train(tmp_path / "cut", "method=smc_gmje")
    for name in ("knn_accuracy", "linear_accuracy"):
        assert again[name] == pytest.approx(whole[name], abs=0.05)


@pytest.mark.parametrize("method", ["smc_gmje", "gmje_mdn"])
def test_compiled_in_half_precision(method: str, tmp_path: Path) -> None:
    options = ["trainer.compile=true", "trainer.precision=bf16-mixed", f"method={method}"]
    assert train(tmp_path, *options)["knn_accuracy"] > 0.5
