"""Where nothing can be written or reached: one clear line, and nothing taken for whole later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning.loggers import WandbLogger

from harness import experiments
from harness.tracking import RunFolder
from tests.harness import wandb_file
from tests.harness.commands import environment, harness, harness_process, only, settings

ASKED = [
    "experiment=banks",
    "data=digits",
    "backbone=small_cnn",
    "trainer=quickstart",
    "trainer.epochs=2",
]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal; W&B's own lines may come before it."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    (line,) = [line for line in lines if not line.startswith("wandb:")]
    assert line.startswith("python -m harness: ")
    return line


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = harness(*ASKED, "logger=csv", "output_root=file", folder=tmp_path)
    line = refused(done)
    assert "cannot write results: Not a directory" in line
    assert "file/banks" in line


def test_a_full_disk_keeps_what_was_whole_and_the_run_goes_on_later(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="POSIX only")
    # A limit on the size of files stands for the disk: metrics fit, the checkpoint does not.
    limited = f"ulimit -f 64 && {sys.executable} -m harness {' '.join(ASKED)} logger=csv"
    done = subprocess.run(
        ["bash", "-c", limited], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "cannot write results: File too large" in refused(done)
    (folder,) = (tmp_path / "outputs" / "banks").iterdir()
    assert not (folder / "results.json").exists()
    assert list((folder / "checkpoints").iterdir()) == []
    again = harness(*ASKED, "logger=csv", folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert (folder / "results.json").exists()


def test_wandb_online_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    line = refused(harness(*ASKED, "logger.mode=online", folder=tmp_path))
    assert "W&B cannot be used" in line
    assert "logger.mode=offline" in line


@pytest.mark.parametrize("asked", [["trainer.epochs=1"], ["experiment=failure_modes"]])
def test_wandb_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")  # not even root can write there
    done = harness_process(*(ASKED if "trainer.epochs=1" in asked else []), *asked, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.rglob("results.json")
    (run,) = wandb_file.read_all(results.parent).values()
    assert "media/table/results" in " ".join(run.files)


def test_results_are_there_before_a_logger_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # W&B names its service to this process's children: undone in the end, as any change is.
    monkeypatch.setenv("WANDB_SERVICE", "")
    monkeypatch.delenv("WANDB_SERVICE")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the logger's")

    monkeypatch.setattr(WandbLogger, "log_table", fail)
    asked = ["trainer.epochs=1", "backbone.width=4", "trainer.batch_size=256"]
    row = settings(*ASKED, *asked)
    several = settings("experiment.num_seeds=1", *asked, *only("simclr"))
    for place, options in (("row", row), ("several", several)):
        with pytest.raises(RuntimeError, match="the logger's"):
            experiments.run(options, RunFolder(tmp_path / place, options))
        assert (tmp_path / place / "results.json").exists()
