"""The command for a GPU machine: what it does there, here on the CPU and in tiny sizes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import gpu
from harness.__main__ import main
from harness.gpu import Step
from harness.tracking import loggers

ROOT = Path(__file__).parents[2]


def report(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def test_a_step_is_cut_off_and_goes_on(tmp_path: Path) -> None:
    count = "import sys, time; f = open(sys.argv[1], 'a+'); f.write('x'); f.flush(); f.seek(0)"
    words = f"{count}; time.sleep(60 if f.read() == 'x' else 0.5); print('at the end')"
    step = Step("row", ("-c", words, str(tmp_path / "file")))
    gpu.run_step(step, tmp_path, seconds=3.0)
    assert report(tmp_path, "row")["state"] == "unfinished"
    first = report(tmp_path, "row")["seconds"]
    gpu.run_step(step, tmp_path, seconds=60.0)
    found = report(tmp_path, "row")
    assert (found["state"], found["last_lines"]) == ("done", ["at the end"])
    assert found["seconds"] > first >= 3.0
    assert (tmp_path / "file").read_text() == "xx"


def test_each_step_once_and_failed_ones_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = "import sys; open(sys.argv[1], 'a').write('x')"
    steps = [
        Step("good", ("-c", count, str(tmp_path / "good"))),
        Step("bad", ("-c", f"{count}; sys.exit('broken')", str(tmp_path / "bad"))),
    ]
    monkeypatch.setattr(gpu, "_steps", lambda *_, **__: steps)
    command = ["--device", "cpu", "--out", str(tmp_path), "--minutes", "5"]
    for _ in range(2):
        gpu.main(command)
    assert [(tmp_path / name).read_text() for name in ("good", "bad")] == ["x", "x"]
    gpu.main([*command, "--only", "good", "bad"])
    assert [(tmp_path / name).read_text() for name in ("good", "bad")] == ["x", "xx"]
    printed = capsys.readouterr().out
    assert "broken" in printed
    assert "failed" in printed


def test_a_step_of_other_options_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--quick first and the minutes that count after it, into the same folder."""
    folder = tmp_path / "runs"
    made = "import json, pathlib, sys; path = pathlib.Path(sys.argv[-1], sys.argv[2])"
    made += "; path.mkdir(parents=True, exist_ok=True); path /= 'results.json'"
    made += "; path.write_text(json.dumps({'command': sys.argv[2:], 'of': sys.argv[2]}))"
    script = tmp_path / "made.py"
    script.write_text(made)
    for options in ("quick", "whole", "quick", "quick"):
        step = Step("row", (str(script), "-", options, str(folder)), folder)
        monkeypatch.setattr(gpu, "_steps", lambda *_, step=step, **__: [step])
        gpu.main(["--device", "cpu", "--out", str(tmp_path), "--minutes", "5"])
        assert report(tmp_path, "row")["results"]["of"] == options


def test_nothing_runs_on_where_the_command_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = "import os, signal, sys, time; open(sys.argv[1], 'w').write(str(os.getpid()))"
    end += "; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    step = Step("row", ("-c", end, str(tmp_path / "pid")))
    monkeypatch.setattr(gpu, "_steps", lambda *_, **__: [step])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as error:
            gpu.main(["--device", "cpu", "--out", str(tmp_path), "--minutes", "5"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error.value.code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_row_where_wandb_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise ModuleNotFoundError('no wandb')\n")
    command = [sys.executable, "-m", "harness", "gpu", "--device", "cpu", "--quick", "--only"]
    command += ["smc", "--out", str(tmp_path / "out"), "--minutes", "5"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    found = report(tmp_path / "out", "smc")
    assert found["state"] == "done"
    assert 0.0 < found["results"]["metrics"]["knn_accuracy"] <= 1.0


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_told_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    for experiment in ("failure_modes", "benchmark"):
        with pytest.raises(SystemExit) as error:
            main([f"experiment={experiment}", f"logger={name}", f"output_root={tmp_path}"])
        assert error.value.code == 2
        assert f"logger={name} needs it: pip install {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--device", "cpu", "--only", "nothing"], "--only: no such step: nothing"),
        (["--device", "cpu", "--minutes", "0"], "must be a positive whole number"),
        pytest.param(
            ["--device", "cuda"],
            "torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        gpu.main(arguments)
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1
