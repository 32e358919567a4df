"""What a report reads: whole runs, and of the others what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.__main__ import main
from harness.report import write_report
from harness.report.reading import binned
from harness.settings import SettingsError
from tests.harness.reports import EPOCHS, FIFO, metric, reported, training


def test_curves_are_means_over_equal_parts_that_end_where_epochs_end() -> None:
    epoch = np.repeat(np.arange(3), 4)
    values = np.arange(12.0)
    long = binned(epoch, values, epochs=3)
    assert len(long) == 99
    assert np.isfinite(long[[32, 65, 98]]).all()  # each epoch's last line at its end
    assert long[np.isfinite(long)].tolist() == values.tolist()
    assert binned(np.repeat(np.arange(200), 2), np.arange(400.0), epochs=200).tolist() == [
        2 * number + 0.5 for number in range(200)
    ]
    gap = binned(np.array([0, 0, 1]), np.array([1.0, np.nan, np.nan]), epochs=2)
    assert np.isfinite(gap).sum() == 1


def test_unfinished_runs_are_listed_and_in_no_mean(tmp_path: Path) -> None:
    done = training(tmp_path / "a", seed=1)
    stopped = training(tmp_path / "b", seed=2, finished=False, curves=True)
    page, text = reported(tmp_path)
    (row,) = page.rows("configuration").values()
    assert row["n"] == "1"
    assert row["linear %"] == f"{100 * metric([done], 'linear_accuracy')[0]:.2f}"
    assert page.rows("folder")[str(stopped)]["epochs"] == f"{EPOCHS / 2} of {EPOCHS}"
    assert "unfinished-4.svg" in text
    page, _ = reported(tmp_path / "b")
    assert page.rows("folder").keys() == {str(stopped)}


def test_a_folder_that_gathers_trainings_is_none_and_wandbs_files_are_not_read(
    tmp_path: Path,
) -> None:
    inner = training(tmp_path / "outer", seed=1)
    (tmp_path / "outer/config.yaml").write_text("experiment: {name: quickstart}")
    (tmp_path / "outer/results.json").write_text('{"rows": {}}')
    for name, written in {"config.yaml": "method: null", "results.json": "{}"}.items():
        (tmp_path / "no_training").mkdir(exist_ok=True)
        (tmp_path / "no_training" / name).write_text(written)
    (inner / "wandb/run/files").mkdir(parents=True)
    (inner / "wandb/run/files/config.yaml").write_text("_wandb: {}")
    page, _ = reported(tmp_path, tmp_path, inner, tmp_path / "outer")
    assert page.rows("configuration")[FIFO]["n"] == "1"
    assert "Left out" not in page.text


DAMAGED: list[tuple[str, bytes | None, str]] = [
    ("results.json", b'{"experiment": "banks", "metr', "damaged or cut off"),
    ("results.json", b"[]", "says nothing of experiment"),
    ("results.json", b'{"experiment": 3}', "experiment is 3"),
    ("results.json", b"\xff\xfe", "cannot read"),
    ("config.yaml", b"a: [", "is damaged"),
    ("config.yaml", b"seed: 1", "says nothing of experiment.name"),
    ("config.yaml", None, "cannot read"),
]


def test_a_damaged_run_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path, seed=1)
    damaged = {}
    for number, (file, content, told) in enumerate(DAMAGED):
        path = training(tmp_path / str(number), seed=2) / file
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        damaged[path] = told
    page, text = reported(tmp_path)
    (row,) = page.rows("configuration").values()
    assert row["n"] == "1"
    errors = capsys.readouterr().err
    for path, told in damaged.items():
        for place in (page.text, text.replace("\\", ""), errors):
            assert re.search(f"{path}.*{told}|{told} {path}", place)
        with pytest.raises(SystemExit) as stopped:
            main(["report", str(path.parent), "--out", str(tmp_path / "none")])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line
    assert not (tmp_path / "none").exists()


DAMAGED_CURVES: list[tuple[Callable[[list[str]], list[str]] | None, str]] = [
    (lambda lines: [*lines, "48,3"], "lines cut off and left out: 1"),
    (lambda lines: [*lines, "48,3,inf,,,"], "values of train/loss not finite and left out: 1"),
    (lambda lines: [*lines, "48,9,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,0,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,3,five,,,"], "is damaged: could not convert"),
    (lambda lines: [], "has no column epoch"),
    (None, "cannot read"),
]


def test_damaged_curves_are_told_and_the_result_stays(tmp_path: Path) -> None:
    told = {}
    for seed, (change, why) in enumerate(DAMAGED_CURVES):
        path = training(tmp_path, seed=seed, curves=True) / "metrics.csv"
        if change is None:
            path.unlink()
        else:
            path.write_text("\n".join(change(path.read_text().splitlines())))
        told[path] = why
    page, _ = reported(tmp_path)
    for path, why in told.items():
        assert re.search(f"{path}.*{why}|{why} {path}", page.text)
    (row,) = page.rows("configuration").values()
    assert row["n"] == str(len(DAMAGED_CURVES))


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    training(tmp_path / "a", seed=1)
    again = training(tmp_path / "b", seed=1)
    page, _ = reported(tmp_path)
    assert f"{again} repeats" in page.text
    assert page.rows("configuration")[FIFO]["n"] == "1"


@pytest.mark.parametrize("folders", [[], ["nowhere"], ["empty"]], ids=str)
def test_nothing_to_report_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folders: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["report", *folders])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (folders or ["folder"])[0] in line
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    training(tmp_path / "runs", seed=1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SettingsError, match="cannot write the report to"):
        write_report([tmp_path / "runs"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"
