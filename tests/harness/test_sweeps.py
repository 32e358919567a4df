"""The sweeps of configs/sweep: every trial that W&B can ask for is one that the harness runs.

wandb has no schema of sweeps, and W&B's ``sweeps`` package, which has, needs numpy < 2. So that
the files are valid, and how many trials its own search makes of them (36 and 50), was seen in an
environment of its own, and is to be seen again after a change::

    python3 -m venv /tmp/sweeps && /tmp/sweeps/bin/pip install sweeps
    for file in configs/sweep/*.yaml; do /tmp/sweeps/bin/python -c "
    import sweeps, sys, yaml
    config = sweeps.SweepConfig(yaml.safe_load(open(sys.argv[1])))
    print(len([run for run in sweeps.next_runs(config, [], n=999) if run]))" $file; done
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from hydra.core.config_store import ConfigStore

from harness.settings import LoggerSettings, SettingsError
from harness.tracking import curve_loggers
from tests.harness import wandb_file
from tests.harness.commands import ROOT, settings

wandb_agent = pytest.importorskip("wandb.wandb_agent", reason="wandb keeps its agent elsewhere")

FOLDER = ROOT / "configs" / "sweep"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DIGITS = ["data=digits", "trainer=quickstart", "backbone=small_cnn", "trainer.epochs=1"]
SWEEP, TRIAL = "a1b2c3d4", "e5f6g7h8"

Values = Mapping[str, Any]
Expansion = Callable[[str, Values], tuple[list[str], dict[str, str]]]


def sweep(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return found


def trials(name: str) -> list[Values]:
    """The grid."""
    values = {key: options["values"] for key, options in sweep(name)["parameters"].items()}
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


@pytest.fixture
def expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Expansion:
    """What W&B's agent would start for a trial: the command and its environment."""
    # The agent's own changes to the environment are undone with these.
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_RUN_ID", "")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    started: list[tuple[list[str], dict[str, str]]] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str], **_: object) -> None:
            started.append((command, env))

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)

    def expand(name: str, values: Values) -> tuple[list[str], dict[str, str]]:
        agent = wandb_agent.Agent(None, None, sweep_id=SWEEP)
        if not hasattr(agent, "_command_run"):
            pytest.skip("wandb's agent starts trials by another name")
        asked = sweep(name)
        agent._sweep_command = asked["command"]
        args = {key: {"value": value} for key, value in values.items()}
        agent._command_run({"program": asked["program"], "run_id": TRIAL, "args": args})
        return started[-1]

    return expand


def overrides(command: Sequence[str]) -> list[str]:
    assert command[:4] == ["/usr/bin/env", "python", "-m", "harness"]
    return list(command[4:])


def test_the_grids_are_as_large_as_they_say() -> None:
    assert {name: len(trials(name)) for name in FILES} == {"banks": 36, "methods": 50}


def test_every_bank_of_experiment_2a_composes(expanded: Expansion) -> None:
    for values in trials("banks"):
        found = settings(*overrides(expanded("banks", values)[0]))
        assert found.experiment.name == "banks"
        assert found.method is not None
        assert found.bank is not None
        assert values == {
            "bank": found.bank.name,
            "bank.size": found.bank.size,
            "method.in_batch_negatives": found.method.in_batch_negatives,
            "seed": found.seed,
        }
        assert found.data.split == "test"


def test_every_method_is_searched_alike_on_held_out_images(expanded: Expansion) -> None:
    for values in trials("methods"):
        found = settings(*overrides(expanded("methods", values)[0]))
        assert found.experiment.name == "benchmark"
        assert found.method is not None
        assert values == {
            "method": found.method.name,
            "method.learning_rate": found.method.learning_rate,
        }
        assert (found.data.split, found.trainer.epochs) == ("validation", 2)
    known = {Path(name).stem for name in ConfigStore.instance().repo["method"]}
    assert {*sweep("methods")["parameters"]["method"]["values"]} == known
    assert sweep("methods")["metric"]["name"] == "eval/linear_accuracy"


def test_a_trial_arrives_in_its_sweep(expanded: Expansion, tmp_path: Path) -> None:
    values = {"bank": "smc", "bank.size": 256, "method.in_batch_negatives": True, "seed": 2}
    command, environment = expanded("banks", values)
    found = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
    }
    subprocess.run([*command, *DIGITS], cwd=tmp_path, env={**environment, **found}, check=True)
    (folder,) = tmp_path.glob(f"outputs/sweep/{SWEEP}/banks/*")
    assert (folder / "results.json").exists()
    (run,) = wandb_file.read_all(folder).values()
    assert (run.id, run.sweep, run.exit_code) == (TRIAL, SWEEP, 0)
    # What W&B tells trials made from those to come by.
    assert {name: run.config[name] for name in values} == values
    assert any("eval/linear_accuracy" in line for line in run.history)


@pytest.mark.parametrize(("told", "mode"), [(None, "online"), ("offline", "offline")])
def test_a_trial_is_online_unless_the_environment_says_otherwise(
    told: str | None, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    def init(**options: object) -> None:
        asked.update(options)
        raise wandb.errors.UsageError("no account")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    if told is None:
        monkeypatch.delenv("WANDB_MODE", raising=False)
    else:
        monkeypatch.setenv("WANDB_MODE", told)
    labels = {"name": "a", "group": "b", "job_type": "c", "config": {}}
    with (
        pytest.raises(SettingsError, match="no account"),
        curve_loggers(LoggerSettings(), tmp_path, **labels),
    ):
        pass
    assert asked["mode"] == mode
