"""A run's folder: found again by the same command, never overwritten without a word."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st

from harness import tracking
from harness.settings import LoggerSettings, SettingsError
from harness.tracking import MetricsFile, RunFolder, folder_name, provenance
from tests.harness import wandb_file
from tests.harness.commands import settings


@given(overrides=st.permutations(["seed=2", "data=digits", "trainer.epochs=3"]))
def test_the_folder_does_not_depend_on_the_order(overrides: list[str]) -> None:
    assert folder_name(overrides) == "data=digits,seed=2,trainer.epochs=3"


def test_what_is_not_asked_of_the_run_is_not_in_its_name() -> None:
    asked = ["experiment=quickstart", "output_root=/tmp/x", "overwrite=true"]
    assert folder_name(asked) == "default"
    assert folder_name([*asked, "seed=2"]) == "seed=2"


def test_long_names_are_short_and_different() -> None:
    names = {
        folder_name([f"experiment.rows.x{n}.title={'a' * 200}" for n in (1, m)]) for m in (2, 3)
    }
    assert len(names) == 2
    assert all(len(name) == 100 for name in names)


@pytest.mark.parametrize("value", ["a/b", "..", "../../x"])
def test_a_name_stays_one_folder(value: str) -> None:
    assert "/" not in folder_name([f"data.root={value}"])


def folder(root: Path, *overrides: str) -> RunFolder:
    overrides = (*overrides, f"output_root={root}")
    return RunFolder(settings(*overrides), overrides)


def finish(run: RunFolder, value: int = 1) -> None:
    run.start()
    run.write_results({"value": value})


def test_a_finished_run_is_found_again(tmp_path: Path) -> None:
    assert folder(tmp_path, "seed=2").finished_results() is None
    finish(folder(tmp_path, "seed=2"))
    assert folder(tmp_path, "seed=2").finished_results() == {"value": 1}
    assert folder(tmp_path, "seed=3").finished_results() is None
    assert folder(tmp_path, "seed=2").path == tmp_path / "quickstart" / "seed=2"


def test_overwrite_repeats_it_in_an_empty_folder(tmp_path: Path) -> None:
    finish(folder(tmp_path))
    (folder(tmp_path).path / "left.over").touch()
    again = folder(tmp_path, "overwrite=true")
    assert again.finished_results() is None
    finish(again, value=2)
    assert sorted(path.name for path in again.path.iterdir()) == ["config.yaml", "results.json"]
    assert folder(tmp_path).finished_results() == {"value": 2}


def test_an_unfinished_run_starts_again(tmp_path: Path) -> None:
    folder(tmp_path).start()
    assert folder(tmp_path).finished_results() is None
    folder(tmp_path).start()


def test_results_of_other_settings_are_not_shown_as_these(tmp_path: Path) -> None:
    run = folder(tmp_path)
    finish(run)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 20", "epochs: 19"))
    with pytest.raises(SettingsError, match="other settings"):
        folder(tmp_path).finished_results()


def test_a_folder_that_is_no_run_is_not_cleared(tmp_path: Path) -> None:
    run = folder(tmp_path, "overwrite=true")
    run.path.mkdir(parents=True)
    (run.path / "thesis.tex").touch()
    with pytest.raises(SettingsError, match="not the folder of a run"):
        run.start()
    assert (run.path / "thesis.tex").exists()


def test_metrics_of_several_trainings_are_one_table(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv")
    for row, extra in (("a", {}), ("b", {"ess": 0.5})):
        for seed in (1, 2):
            logger = metrics.labelled(row=row, seed=seed)
            for step in range(3):
                logger.log_metrics({"loss": seed + step / 10, **extra}, step=step)
            logger.finalize("success")
    with (tmp_path / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert lines[-1] == {"row": "b", "seed": "2", "step": "2", "loss": "2.2", "ess": "0.5"}
    assert lines[0]["ess"] == ""
    assert list(metrics.curves("ess")) == ["b"]
    assert metrics.curves("loss")["a"].tolist() == [[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]]


def test_a_crash_leaves_a_readable_wandb_run(tmp_path: Path) -> None:
    names = {"name": "a", "group": "b", "job_type": "c", "config": {"seed": 1}}

    def crash() -> None:
        with tracking.wandb_run(LoggerSettings(), tmp_path, **names) as (logger,):
            logger.log_metrics({"loss": 1.5}, step=7)
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    wandb.teardown()  # as at the end of a process: its service has written all there is
    run = wandb_file.read_all(tmp_path)["a"]
    assert (run.group, run.job_type, run.exit_code) == ("b", "c", 1)
    assert run.config["seed"] == 1
    (line,) = run.history
    assert (line["loss"], line["trainer/global_step"]) == (1.5, 7)


def test_no_wandb_run_where_none_is_wanted(tmp_path: Path) -> None:
    names = {"name": "a", "group": "b", "job_type": "c", "config": {}}
    with tracking.wandb_run(LoggerSettings(name="none"), tmp_path, **names) as loggers:
        assert loggers == []
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_json_and_names_what_ran() -> None:
    found = json.loads(json.dumps(provenance()))
    assert found["versions"]["torch"]
    assert found["versions"]["gmje-plugin"]
    assert found["hardware"]["cores"] >= 1
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40
