"""Which process is the first: of one training, not of an allocation that several share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.processes import is_first_process
from harness.settings import SettingsError, TrainerSettings
from tests.harness import wandb_file
from tests.harness.commands import harness, only

# What srun, and another launcher, tell the second of several tasks.
SECOND = {
    "srun": {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "pack",
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
    },
    "other": {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "NODE_RANK": "1"},
}
SMALL = ["data=digits", "backbone=small_cnn", "backbone.width=4", "trainer.epochs=1"]


@pytest.mark.parametrize(
    ("launcher", "asked"),
    [
        ("srun", ["experiment=benchmark", "method=simclr"]),
        ("other", ["experiment.num_seeds=1", *only("simclr", "moco_smc")]),
    ],
    ids=["srun, benchmark", "other, quickstart"],
)
def test_trainings_packed_in_one_allocation_are_each_whole(
    launcher: str, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SECOND[launcher].items():
        monkeypatch.setenv(name, value)
    done = harness(*asked, *SMALL, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.glob("outputs/*/*/results.json")
    assert str(results.parent.relative_to(tmp_path)) in done.stdout
    assert json.loads(results.read_text())["wall_time_s"] > 0.0
    trainings = list(tmp_path.rglob("metrics.csv"))
    assert trainings
    for training in trainings:
        (run,) = wandb_file.read_all(training.parent).values()
        assert (run.exit_code, "train/loss" in run.history[0]) == (0, True)


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),  # nobody who starts processes is there
        ({"LOCAL_RANK": "1"}, False),  # as Lightning starts them
        ({"NODE_RANK": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
        ({**SECOND["srun"], "SLURM_NTASKS_PER_NODE": "2"}, False),
        ({**SECOND["srun"], "SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "0"}, True),
    ],
)
def test_one_process_of_all_machines_is_the_first(
    told: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", **told}.items():
        monkeypatch.setenv(name, value)
    assert is_first_process(TrainerSettings(devices=2, num_nodes=2)) == first


@pytest.mark.parametrize("told", SECOND.values(), ids=SECOND)
def test_beside_others_a_training_on_one_device_is_alone(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert is_first_process(TrainerSettings())


def test_as_many_tasks_as_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECOND["srun"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"trainer.devices=2, .*--ntasks-per-node=4"):
        is_first_process(TrainerSettings(devices=2))


@pytest.mark.parametrize(
    ("told", "devices"),
    [({"TORCHELASTIC_RUN_ID": "torchrun's"}, 1), ({"TORCHELASTIC_RUN_ID": "x"}, 3), ({}, 3)],
)
def test_as_many_processes_as_devices(
    told: dict[str, str], devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", **told}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"trainer.devices={devices}, .* that were started"):
        is_first_process(TrainerSettings(devices=devices))
