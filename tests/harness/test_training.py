"""A training is a function of its settings and its seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness import training
from harness.data import ImageData, ImageSet, load
from harness.methods import Method
from harness.settings import QuickstartSettings, SettingsError
from harness.tracking import MetricsFile
from tests.harness.commands import settings

SETTINGS = settings("trainer.epochs=1")
assert isinstance(SETTINGS.experiment, QuickstartSettings)
ROWS = SETTINGS.experiment.rows


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load(SETTINGS.data)


def train(name: str, data: ImageData, log: MetricsFile, *, seed: int = 1) -> Method:
    return training.train(ROWS[name].method, SETTINGS, data, seed=seed, loggers=[log], callbacks=[])


def log(folder: Path) -> MetricsFile:
    return MetricsFile(folder / "metrics.csv").labelled(row="a", seed=1)


@pytest.mark.parametrize("name", ["moco_smc", "byol_mdn"])
def test_the_same_seed_gives_the_same_network_bit_for_bit(
    name: str, data: ImageData, tmp_path: Path
) -> None:
    first, second = (train(name, data, log(tmp_path)).state_dict() for _ in range(2))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    other = train(name, data, log(tmp_path), seed=2).state_dict()
    assert not torch.equal(first["backbone.network.0.weight"], other["backbone.network.0.weight"])


def test_every_step_is_logged_with_the_loss_and_the_banks_state(
    data: ImageData, tmp_path: Path
) -> None:
    metrics = log(tmp_path)
    train("moco_smc", data, metrics)
    assert [line["step"] for line in metrics.lines] == list(range(21))
    assert {"loss", "ess", "ess_ratio", "alignment", "epoch"} <= set(metrics.lines[0])
    for line in metrics.lines:
        assert 0.0 < line["ess_ratio"] <= 1.0
        assert line["loss"] == pytest.approx(line["alignment"] + line["uniformity"], abs=1e-4)


def test_the_callers_generator_is_left_alone(data: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train("moco_fifo", data, log(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_is_no_number_ends_the_training_with_advice(
    data: ImageData, tmp_path: Path
) -> None:
    broken = ImageData(**{**vars(data), "std": torch.zeros(1)})
    with pytest.raises(SettingsError, match=r"the loss is nan at step 0: lower the learning_rate"):
        train("simclr", broken, log(tmp_path))


def test_too_few_images_for_a_batch(data: ImageData) -> None:
    few = ImageData(
        **{**vars(data), "train": ImageSet(data.train.images[:10], data.train.labels[:10])}
    )
    training.check(SETTINGS, data)
    with pytest.raises(SettingsError, match="at most the number of training images, 10, got 64"):
        training.check(SETTINGS, few)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(data: ImageData) -> None:
    with pytest.raises(SettingsError, match="torch sees no GPU"):
        training.check(settings("trainer.accelerator=cuda"), data)
