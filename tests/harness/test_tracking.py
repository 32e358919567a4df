"""A run's folder: found again by the same command, never overwritten without a word."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st

from harness import tracking
from harness.settings import LoggerSettings, Settings, SettingsError
from harness.tracking import (
    MetricsFile,
    RunFolder,
    curve,
    folder_name,
    provenance,
    read_metrics,
)
from tests.harness import wandb_file
from tests.harness.commands import settings, words


@given(overrides=st.permutations(["seed=2", "data=digits", "trainer.epochs=3"]))
def test_the_folder_does_not_depend_on_the_order(overrides: list[str]) -> None:
    assert folder_name(overrides) == "data=digits,seed=2,trainer.epochs=3"


def test_no_words_are_the_default() -> None:
    assert folder_name([]) == "default"


def test_long_names_are_short_and_different() -> None:
    names = {
        folder_name([f"experiment.rows.x{n}.title={'a' * 200}" for n in (1, m)]) for m in (2, 3)
    }
    assert len(names) == 2
    assert all(len(name) == 100 for name in names)


@pytest.mark.parametrize("value", ["a/b", "..", "../../x"])
def test_a_name_stays_one_folder(value: str) -> None:
    assert "/" not in folder_name([f"data.root={value}"])


@cache
def asked(*overrides: str) -> tuple[Settings, list[str]]:
    """What a command line says, composed once, as that takes half a second."""
    return settings(*overrides), words(*overrides)


def folder(root: Path, *overrides: str) -> RunFolder:
    """The folder of a command line below a root, which is no part of its name."""
    found, deciding = asked(*overrides, "output_root=another")
    return RunFolder.of_command(replace(found, output_root=str(root)), deciding)


def finish(run: RunFolder, value: int = 1) -> None:
    with run.started():
        run.write_results({"value": value})


def test_a_finished_run_is_found_again(tmp_path: Path) -> None:
    assert folder(tmp_path, "seed=2").finished_results() is None
    finish(folder(tmp_path, "seed=2"))
    assert folder(tmp_path, "seed=2").finished_results() == {"value": 1}
    assert folder(tmp_path, "seed=3").finished_results() is None
    assert folder(tmp_path, "seed=2").path == tmp_path / "quickstart" / "seed=2"


def test_a_run_is_found_again_whatever_else_is_typed(tmp_path: Path) -> None:
    finish(folder(tmp_path))
    for more in ("seed=1", "logger=csv", "data=digits", "data.workers=0"):
        assert folder(tmp_path, more).finished_results() == {"value": 1}


def test_overwrite_repeats_it_in_an_empty_folder(tmp_path: Path) -> None:
    finish(folder(tmp_path))
    (folder(tmp_path).path / "left.over").touch()
    again = folder(tmp_path, "overwrite=true")
    assert again.finished_results() is None
    finish(again, value=2)
    assert sorted(path.name for path in again.path.iterdir()) == ["config.yaml", "results.json"]
    assert folder(tmp_path).finished_results() == {"value": 2}


def test_an_unfinished_run_goes_on_with_what_is_there(tmp_path: Path) -> None:
    with folder(tmp_path).started():
        (folder(tmp_path).path / "checkpoints").mkdir()
    assert folder(tmp_path).finished_results() is None
    with folder(tmp_path).started():
        assert (folder(tmp_path).path / "checkpoints").exists()


def test_what_a_kill_in_the_first_moment_leaves_is_nobodys(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.path.mkdir(parents=True)
    for name in ("config.yaml.tmp", ".lock"):
        (run.path / name).touch()
    with run.started():
        assert run.finished_results() is None


def test_a_folder_that_was_moved_is_the_same_run(tmp_path: Path) -> None:
    finish(folder(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder(tmp_path / "b").finished_results() == {"value": 1}


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        folder(tmp_path).started(),
        pytest.raises(SettingsError, match="in use by another process"),
        folder(tmp_path, "overwrite=true").started(),
    ):
        pass


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_told_of_and_gone_on_with(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number))

    fcntl = pytest.importorskip("fcntl", reason="POSIX only")
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="quickstart/default cannot be locked"):
        finish(folder(tmp_path))
    assert folder(tmp_path).finished_results() == {"value": 1}


def test_no_lock_lies_about_where_the_system_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tracking.folder.fcntl", None)  # Windows
    with folder(tmp_path).started():
        assert [path.name for path in folder(tmp_path).path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("name", ["config.yaml", "results.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_run_with_a_file_cut_off_is_not_finished(name: str, share: float, tmp_path: Path) -> None:
    run = folder(tmp_path)
    finish(run)
    text = (run.path / name).read_text()
    (run.path / name).write_text(text[: int(share * len(text))])
    if name == "results.json":
        assert folder(tmp_path).finished_results() is None
    finish(folder(tmp_path), value=2)
    assert (run.path / "config.yaml").read_text().count("\n") > 20
    assert folder(tmp_path).finished_results() == {"value": 2}


@pytest.mark.parametrize("content", [b"\0" * 40, b"\xff\xfe", b"a: [1", b"a: 1\n b: 2"])
def test_a_damaged_config_is_one_line(content: bytes, tmp_path: Path) -> None:
    run = folder(tmp_path)
    finish(run)
    (run.path / "config.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match="of other settings") as caught:
        folder(tmp_path).finished_results()
    if content != b"\xff\xfe":
        assert "(config.yaml is damaged)" in str(caught.value)


def test_results_of_other_settings_are_not_shown_as_these(tmp_path: Path) -> None:
    run = folder(tmp_path)
    finish(run)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 20", "epochs: 19"))
    with pytest.raises(SettingsError, match=r"trainer.epochs: 19 there, 20 asked"):
        folder(tmp_path).finished_results()


def test_a_folder_that_is_no_run_is_not_cleared(tmp_path: Path) -> None:
    run = folder(tmp_path, "overwrite=true")
    run.path.mkdir(parents=True)
    (run.path / "thesis.tex").touch()
    with pytest.raises(SettingsError, match="not the folder of a run"), run.started():
        pass
    assert (run.path / "thesis.tex").exists()


ROWS = [
    *({"step": step, "epoch": step // 3, "train/loss": 1 / (step + 3)} for step in range(3)),
    {"step": 2, "epoch": 0, "eval/online_accuracy": 0.1 + 0.2},
    *(
        {"step": step, "epoch": step // 3, "train/loss": 0.1, "bank/ess": 2.5}
        for step in range(3, 6)
    ),
]


def log(path: Path, rows: list[dict[str, float]]) -> MetricsFile:
    metrics = MetricsFile(path)
    for row in rows:
        metrics.log_metrics({k: v for k, v in row.items() if k != "step"}, step=row["step"])
    return metrics


def test_metrics_are_read_as_they_were_written(tmp_path: Path) -> None:
    metrics = log(tmp_path / "metrics.csv", ROWS)
    assert read_metrics(metrics.path) == metrics.rows == ROWS  # before it is closed
    metrics.finalize("success")
    assert read_metrics(metrics.path) == ROWS
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,train/loss,eval/online_accuracy,bank/ess"
    steps, values = curve(ROWS, "bank/ess")
    assert (steps.tolist(), values.tolist()) == ([3, 4, 5], [2.5, 2.5, 2.5])
    assert [part.size for part in curve(ROWS, "none")] == [0, 0]


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    log(path, ROWS).finalize("killed")
    text = path.read_text()
    path.write_text(text[:cut])
    lines = text[:cut].count("\n")
    assert read_metrics(path) == ROWS[: max(0, lines - 1)]


@pytest.mark.parametrize("first_step", [0, 3, 5])
def test_metrics_are_cut_back_to_the_checkpoints_step(tmp_path: Path, first_step: int) -> None:
    path = tmp_path / "metrics.csv"
    log(path, ROWS).finalize("killed")
    path.open("a").write("6,2,0.0")  # in the middle of a line
    metrics = MetricsFile(path, first_step=first_step)
    assert metrics.rows == [row for row in ROWS if row["step"] < first_step]
    for row in ROWS[len(metrics.rows) :]:
        metrics.log_metrics({k: v for k, v in row.items() if k != "step"}, step=row["step"])
    whole = tmp_path / "whole.csv"
    log(whole, ROWS)
    assert path.read_text() == whole.read_text()


def test_a_checkpoint_without_its_metrics_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"metrics.csv is missing or empty"):
        MetricsFile(tmp_path / "metrics.csv", first_step=3)


def test_a_crash_leaves_a_readable_wandb_run(tmp_path: Path) -> None:
    names = {"name": "a", "group": "b", "job_type": "c", "config": {"seed": 1}}

    def crash() -> None:
        with tracking.curve_loggers(LoggerSettings(), tmp_path, **names) as (logger,):
            logger.log_metrics({"train/loss": 1.5}, step=7)
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash()
    wandb.teardown()  # as at the end of a process: its service has written all there is
    run = wandb_file.read_all(tmp_path)["a"]
    assert (run.group, run.job_type, run.exit_code) == ("b", "c", 1)
    assert run.config["seed"] == 1
    (line,) = run.history
    assert (line["train/loss"], line["trainer/global_step"]) == (1.5, 7)


def test_no_wandb_run_where_none_is_wanted(tmp_path: Path) -> None:
    names = {"name": "a", "group": "b", "job_type": "c", "config": {}}
    with tracking.curve_loggers(LoggerSettings(name="csv"), tmp_path, **names) as loggers:
        assert loggers == []
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_json_and_names_what_ran() -> None:
    found = json.loads(json.dumps(provenance()))
    assert found["versions"]["torch"]
    assert found["versions"]["gmje-plugin"]
    assert found["hardware"]["cores"] >= 1
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40


def test_tensorboard_holds_the_rows_once_also_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = {"name": "a", "group": "b", "job_type": "c", "config": {}}
    settings = LoggerSettings(name="tensorboard")
    for known in ([], ROWS[:3]):  # the second time, what the checkpoint's steps have logged
        with tracking.curve_loggers(settings, tmp_path, rows=known, **names) as (logger,):
            for row in ROWS[len(known) :]:
                logger.log_metrics({k: row[k] for k in row.keys() & {"train/loss"}}, row["step"])
            logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    losses = {row["step"]: row["train/loss"] for row in ROWS if "train/loss" in row}
    assert found == pytest.approx(losses)
    assert len(events.Scalars("train/loss")) == 6


def test_a_wandb_run_that_goes_on_offline_is_whole(tmp_path: Path) -> None:
    names = {"name": "a", "group": "b", "job_type": "c", "config": {}}
    for known in ([], ROWS[:3]):
        with tracking.curve_loggers(LoggerSettings(), tmp_path, rows=known, **names) as (logger,):
            for row in ROWS[len(known) :]:
                logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"])
    wandb.teardown()
    (run,) = wandb_file.read_all(tmp_path).values()
    assert [line["train/loss"] for line in run.history if "train/loss" in line] == [
        row["train/loss"] for row in ROWS if "train/loss" in row
    ]
