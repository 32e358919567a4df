"""Jobs in processes: their order, what is skipped, what a failure leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from harness.progress import Report
from harness.settings import SettingsError
from harness.workers import Job, run_jobs
from tests.harness.commands import environment


def _write(path: Path, needed: list[Path], report: Report) -> None:
    assert all(other.exists() for other in needed)
    report(1, "")
    path.write_text(str(os.getpid()))


def _fail(message: str, report: Report) -> None:
    raise SettingsError(message)


def _sleep(path: Path, report: Report) -> None:
    time.sleep(600.0)
    path.write_text("slept")


def _job(folder: Path, name: str, *needs: str) -> Job:
    do = partial(_write, folder / name, [folder / needed for needed in needs])
    return Job(name, do, folder / name, needs=frozenset(needs))


def _go(jobs: list[Job]) -> None:
    run_jobs(jobs, workers=2, threads=1, console=Console(quiet=True))


def test_jobs_wait_for_what_they_need_and_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "b").write_text('"before"')
    _go(
        [
            _job(tmp_path, "c", "a", "b"),
            _job(tmp_path, "d", "c"),
            _job(tmp_path, "a"),
            _job(tmp_path, "b"),
        ]
    )
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "d"}
    assert (tmp_path / "b").read_text() == '"before"'
    assert str(os.getpid()) not in {path.read_text() for path in tmp_path.iterdir()}


def test_what_is_cut_off_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    _go([_job(tmp_path, "a")])
    assert (tmp_path / "a").read_text() != ""


def test_jobs_that_need_each_other_or_nobody(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cycle"):
        _go([_job(tmp_path, "a", "b"), _job(tmp_path, "b", "a"), _job(tmp_path, "c")])
    with pytest.raises(ValueError, match="needs must be names of jobs, got d, e"):
        _go([_job(tmp_path, "a", "e", "b", "d"), _job(tmp_path, "b")])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_ends_the_others_and_is_told(tmp_path: Path) -> None:
    jobs = [
        Job("slow", partial(_sleep, tmp_path / "slow"), tmp_path / "slow"),
        Job("wrong", partial(_fail, "lower the learning_rate"), tmp_path / "wrong"),
        _job(tmp_path, "after", "wrong"),
    ]
    with pytest.raises(SettingsError, match="lower the learning_rate"):
        _go(jobs)
    assert list(tmp_path.iterdir()) == []


_RUNS_FOR_EVER = """
from functools import partial
from pathlib import Path
from tests.harness.test_workers import _go, _say_and_sleep
from harness.workers import Job

if __name__ == "__main__":
    folder = Path(".")
    _go([Job(name, partial(_say_and_sleep, folder / name), folder / "never") for name in "ab"])
"""


def _say_and_sleep(path: Path, report: Report) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600.0)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, sent: signal.Signals
) -> None:
    (tmp_path / "forever.py").write_text(_RUNS_FOR_EVER)
    command = [sys.executable, "forever.py"]
    started = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    said = [tmp_path / name for name in "ab"]
    while started.poll() is None and not all(path.exists() and path.read_text() for path in said):
        time.sleep(0.1)
    workers = [int(path.read_text()) for path in said]
    started.send_signal(sent)
    started.wait()
    for _ in range(600):  # they look twice a second
        if not any(map(_alive, workers)):
            break
        time.sleep(0.1)
    assert not any(map(_alive, workers))
