"""The first command of a newcomer, on few epochs: what it prints and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from harness.tracking import read_metrics
from tests.harness import wandb_file
from tests.harness.commands import harness, only, shown

ROWS = [
    "moco_fifo",
    "moco_smc",
    "moco_smc_paper",
    "moco_smc_in_batch",
    "simclr",
    "simclr_prototype",
    "simclr_entropy",
    "byol",
    "byol_mdn",
]
ASKED = ["trainer.epochs=1", "experiment.num_seeds=1"]
STEPS = 21  # 1347 images in batches of 64


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run's folder and what the command printed."""
    where = tmp_path_factory.mktemp("checkout")
    done = harness(*ASKED, folder=where)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [path.name for path in where.iterdir()] == ["outputs"]
    return where / "outputs" / "quickstart" / ",".join(sorted(ASKED)), done.stdout


@pytest.fixture(scope="module")
def results(ran: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ran[0] / "results.json").read_text())
    return found


def test_the_folder_holds_what_is_promised(ran: tuple[Path, str]) -> None:
    names = {path.name for path in ran[0].iterdir()}
    assert names == {"config.yaml", "figures", "trainings", "results.json", "wandb", "wandb-id"}
    trainings = {path.name for path in (ran[0] / "trainings").iterdir()}
    assert trainings == {f"{row},seed=1" for row in ROWS}
    assert "epochs: 1\n" in (ran[0] / "config.yaml").read_text()


def test_the_table_shows_every_row_in_80_columns(
    ran: tuple[Path, str], results: dict[str, Any]
) -> None:
    lines = shown(ran[1])
    assert max(map(len, lines)) <= 100  # the folder's path, in pytest, is the longest line
    for row in [{"title": "untrained network", **results["untrained"]}, *results["rows"].values()]:
        line = next(line for line in lines if line.strip().startswith(f"{row['title']}  "))
        assert f"{100 * row['knn_accuracy'][0]:.1f}" in line
        assert f"{100 * row['linear_accuracy'][0]:.1f}" in line


def test_results_tell_what_came_out_and_where(results: dict[str, Any]) -> None:
    assert list(results["rows"]) == ROWS
    for row in [*results["rows"].values(), results["untrained"]]:
        assert 0.5 < row["knn_accuracy"][0] <= 1.0
        assert 0.5 < row["linear_accuracy"][0] <= 1.0
        assert 1.0 < row["effective_rank"][0] <= 64.0
    assert results["seeds"] == [1]
    assert "1347 training images, 450 test images" in results["data"]
    assert results["versions"]["lightly"]
    assert results["hardware"]["cpu"]
    assert results["command"] == ASKED
    assert results["wall_time_s"] > 0


def metrics(run: Path, row: str) -> list[dict[str, float]]:
    return read_metrics(run / "trainings" / f"{row},seed=1" / "metrics.csv")


@pytest.mark.parametrize("row", ROWS)
def test_metrics_hold_every_step_of_every_training(ran: tuple[Path, str], row: str) -> None:
    losses = [line for line in metrics(ran[0], row) if "train/loss" in line]
    assert [line["step"] for line in losses] == list(range(STEPS))
    assert np.isfinite([line["train/loss"] for line in losses]).all()
    assert all(("smc" in row) == ("bank/ess_ratio" in line) for line in losses)


@pytest.mark.parametrize("name", ["loss", "ess", "accuracy", "density"])
def test_figures_are_pictures_of_something(ran: tuple[Path, str], name: str) -> None:
    picture = imread(ran[0] / "figures" / f"{name}.png")[..., :3]
    assert picture.shape[0] > 300
    assert 0.02 < (picture < 0.95).any(axis=-1).mean() < 0.9


def test_every_training_is_a_wandb_run_with_its_metrics(
    ran: tuple[Path, str], results: dict[str, Any]
) -> None:
    for row in ROWS:
        (run,) = wandb_file.read_all(ran[0] / "trainings" / f"{row},seed=1").values()
        assert (run.name, run.group, run.exit_code) == (f"{row}, seed 1", "quickstart", 0)
        assert {
            "method.name",
            "bank.size" if "moco" in row else "bank",
            "seed",
            "trainer.epochs",
            "commit",
        } <= set(run.config)
        assert "1347 training images" in run.config["data_variant"]
        logged = metrics(ran[0], row)
        for column in ("train/loss", "eval/online_accuracy", "bank/ess_ratio"):
            found = [line[column] for line in run.history if column in line]
            assert found == [line[column] for line in logged if column in line]
        (speed,) = [line for line in run.history if "train/images_per_second" in line]
        assert speed["train/images_per_second"] > 0.0
        (final,) = [line for line in run.history if "eval/knn_accuracy" in line]
        assert final["eval/knn_accuracy"] == results["rows"][row]["knn_accuracy"][0]
        media = " ".join(run.files)
        assert "media/images/curves" in media
        assert "media/table/results" in media


def test_the_summary_run_holds_figures_table_and_provenance(
    ran: tuple[Path, str], results: dict[str, Any]
) -> None:
    run = wandb_file.read_all(ran[0])["summary"]
    assert run.config["versions"] == results["versions"]
    assert {"hardware", "commit", "data.name", "experiment.name"} <= set(run.config)
    media = " ".join(run.files)
    for name in ("images/loss", "images/ess", "images/accuracy", "images/density", "table/results"):
        assert f"media/{name}" in media


def test_the_same_command_shows_it_again(ran: tuple[Path, str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in ran[0].rglob("*")}
    again = harness(*ASKED, folder=ran[0].parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert "Finished before" in again.stdout
    told = ran[1].splitlines()
    assert sum(": epoch 1 of" in line and "online probe" in line for line in told) == len(ROWS)
    assert shown(again.stdout)[:-1] == shown(ran[1])[:-1]
    assert {path: path.stat().st_mtime_ns for path in ran[0].rglob("*")} == before


def test_an_interrupted_one_repeats_no_finished_training(ran: tuple[Path, str]) -> None:
    (ran[0] / "results.json").unlink()
    lost = ran[0] / "trainings" / "byol,seed=1" / "results.json"
    lost.unlink()
    kept = ran[0] / "trainings" / "simclr,seed=1" / "results.json"
    before = kept.stat().st_mtime_ns
    again = harness(*ASKED, folder=ran[0].parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert kept.stat().st_mtime_ns == before
    assert lost.exists()
    assert "BYOL" in again.stdout


def test_a_sweep_runs_once_for_each_value(tmp_path: Path) -> None:
    rows = ["method@experiment.rows.simclr.method=parametric_gmje"]
    rows += only("simclr", "simclr_prototype")
    asked = ["-m", "seed=4,5", "logger=csv", *ASKED, *rows]
    done = harness(*asked, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = sorted((tmp_path / "outputs" / "quickstart").glob("*/results.json"))
    assert [json.loads(path.read_text())["seeds"] for path in found] == [[4], [5]]
    for path in found:
        assert sorted(p.name for p in (path.parent / "figures").iterdir()) == [
            "accuracy.png",
            "density.png",
            "density_simclr_prototype.png",
            "loss.png",
        ]
        assert not (path.parent / "wandb").exists()
