"""Jobs in processes: their order, what is skipped, what a failure leaves."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from harness.settings import SettingsError
from harness.workers import Advance, Job, carry_out


def _write(path: Path, needed: list[Path], advance: Advance) -> None:
    assert all(other.exists() for other in needed)
    advance(1)
    path.write_text(str(os.getpid()))


def _fail(message: str, advance: Advance) -> None:
    raise SettingsError(message)


def _sleep(path: Path, advance: Advance) -> None:
    time.sleep(600.0)
    path.write_text("slept")


def _job(folder: Path, name: str, *needs: str) -> Job:
    do = partial(_write, folder / name, [folder / needed for needed in needs])
    return Job(name, do, folder / name, needs=frozenset(needs))


def _go(jobs: list[Job]) -> None:
    carry_out(jobs, workers=2, threads=1, console=Console(quiet=True))


def test_jobs_wait_for_what_they_need_and_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("before")
    _go(
        [
            _job(tmp_path, "c", "a", "b"),
            _job(tmp_path, "d", "c"),
            _job(tmp_path, "a"),
            _job(tmp_path, "b"),
        ]
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d"}
    assert (tmp_path / "b").read_text() == "before"
    assert str(os.getpid()) not in {path.read_text() for path in tmp_path.iterdir()}


def test_a_failure_ends_the_others_and_is_told(tmp_path: Path) -> None:
    jobs = [
        Job("slow", partial(_sleep, tmp_path / "slow"), tmp_path / "slow"),
        Job("wrong", partial(_fail, "lower the learning_rate"), tmp_path / "wrong"),
        _job(tmp_path, "after", "wrong"),
    ]
    with pytest.raises(SettingsError, match="lower the learning_rate"):
        _go(jobs)
    assert list(tmp_path.iterdir()) == []
