"""A training is a function of its settings and its seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness import runs, training
from harness.__main__ import main
from harness.data import ImageData, ImageSet, load
from harness.methods.modules.base import Method, Step
from harness.methods.modules.contrastive import SimCLR
from harness.settings import Settings, SettingsError
from harness.tracking import MetricsFile, RunFolder
from tests.harness.commands import harness, settings

SETTINGS = settings()
DIGITS = ["experiment=benchmark", "data=digits", "backbone=small_cnn", "trainer=quickstart"]


def asked(method: str, *overrides: str) -> Settings:
    return settings(*DIGITS, f"method={method}", "trainer.epochs=1", *overrides)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load(SETTINGS.data)


def train(
    options: Settings, data: ImageData, folder: Path
) -> tuple[Method, list[dict[str, int | float]]]:
    """The trained method and what it logged."""
    folder.mkdir()
    log = MetricsFile(folder / "metrics.csv")
    return training.train(options, data, RunFolder(folder, options), loggers=[log]), log.rows


@pytest.mark.parametrize("method", ["smc_gmje", "gmje_mdn", "swav"])
def test_the_same_seed_gives_the_same_network_bit_for_bit(
    method: str, data: ImageData, tmp_path: Path
) -> None:
    options = asked(method, "method.learning_rate=0.01")
    first, second = (train(options, data, tmp_path / n)[0].state_dict() for n in "ab")
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    other = asked(method, "method.learning_rate=0.01", "seed=2")
    weights = train(other, data, tmp_path / "c")[0].state_dict()
    assert not torch.equal(first["backbone.network.0.weight"], weights["backbone.network.0.weight"])


def test_every_step_is_logged_with_the_loss_and_the_banks_state(
    data: ImageData, tmp_path: Path
) -> None:
    _, rows = train(asked("smc_gmje", "bank.size=100"), data, tmp_path / "a")
    *steps, probe = rows
    assert [row["step"] for row in steps] == list(range(21))
    for row in steps:
        assert 0.0 < row["bank/ess_ratio"] <= 1.0
        assert row["train/loss"] == pytest.approx(
            row["train/alignment"] + row["train/uniformity"], abs=1e-4
        )
    rates = [row["train/learning_rate"] for row in steps]
    assert 0.0 <= rates[0] < max(rates) == pytest.approx(0.03)
    assert rates[-1] < 1e-3
    # Ten classes in equal shares, but for chance: 64 queries, 100 entries.
    assert [row["bank/false_negatives"] for row in steps[2:]] == pytest.approx([0.1] * 19, abs=0.03)
    assert probe.keys() == {"step", "epoch", "eval/online_accuracy"}
    assert probe["step"] == 20
    assert 0.1 < probe["eval/online_accuracy"] < 1.0


def test_the_last_epoch_is_probed_whatever_the_interval(data: ImageData, tmp_path: Path) -> None:
    options = asked("simclr", "trainer.epochs=3", "trainer.probe_every=2")
    _, rows = train(options, data, tmp_path / "a")
    assert [row["epoch"] for row in rows if "eval/online_accuracy" in row] == [1, 2]


def test_the_online_probe_changes_nothing_else(data: ImageData, tmp_path: Path) -> None:
    """A probe of other classes leaves the encoder as it is."""
    relabelled = replace(data, train=ImageSet(data.train.images, data.train.labels.flip(0)))
    options = asked("simclr")
    one, other = (
        train(options, images, tmp_path / n)[0] for images, n in ((data, "a"), (relabelled, "b"))
    )
    assert_same = torch.testing.assert_close
    for key, value in one.backbone.state_dict().items():
        assert_same(value, other.backbone.state_dict()[key], rtol=0, atol=0)
    head = "online_probe.classification_head.weight"
    assert not torch.equal(one.state_dict()[head], other.state_dict()[head])


@pytest.mark.parametrize(("optimizer", "rate"), [("lars", 1.0), ("adamw", 0.001)])
def test_other_optimizers(optimizer: str, rate: float, data: ImageData, tmp_path: Path) -> None:
    options = asked("vicreg", f"method.optimizer={optimizer}", f"method.learning_rate={rate}")
    _, rows = train(options, data, tmp_path / "a")
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]


def test_a_step_makes_as_many_views_as_the_method_asks_for(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    step = SimCLR.step

    def watched(self: SimCLR, views: tuple[torch.Tensor, ...]) -> Step:
        made.append([len(view) for view in views])
        return step(self, views)

    monkeypatch.setattr(SimCLR, "step", watched)
    options = asked("simclr", "method.num_views=3", "trainer.batch_size=256")
    train(options, data, tmp_path / "a")
    assert made == [[256] * 3] * 5
    assert runs.title(options) == "SimCLR, 3 views"


def test_half_precision_is_near_full_precision(data: ImageData, tmp_path: Path) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        options = asked("moco", f"trainer.precision={precision}")
        module, rows = train(options, data, tmp_path / precision)
        losses[precision] = torch.tensor([row["train/loss"] for row in rows if "train/loss" in row])
        assert module.bank.bank.dtype == torch.float32
    assert not torch.equal(*losses.values())
    torch.testing.assert_close(*losses.values(), rtol=0.05, atol=0.05)


def test_the_callers_generator_is_left_alone(data: ImageData, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(asked("moco"), data, tmp_path / "a")
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_is_no_number_ends_the_training_with_advice(
    data: ImageData, tmp_path: Path
) -> None:
    broken = replace(data, std=torch.zeros(1))
    with pytest.raises(SettingsError, match=r"the loss is nan at step 0: lower the learning_rate"):
        train(asked("simclr"), broken, tmp_path / "a")


def test_weights_that_are_no_numbers_are_in_no_checkpoint(data: ImageData, tmp_path: Path) -> None:
    """Also where the step that goes wrong is not logged."""
    options = asked("simclr", "trainer.log_every=1000", "method.learning_rate=1e6")
    with pytest.raises(SettingsError, match=r"the loss is nan at step 21: lower"):
        train(options, data, tmp_path / "a")
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_no_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    asked = ["experiment=benchmark", "method=simclr", "data=digits", "trainer=quickstart"]
    small = ["backbone=small_cnn", "backbone.width=4", "trainer.epochs=1", "logger=csv"]
    done = harness(*asked, *small, "trainer.compile=true", folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "trainer.compile=true, but torch cannot compile" in line
    assert "C++ compiler" in line


@pytest.mark.parametrize(
    "option", ["method.covariance=diagonal", "method.temperature=1e-9", "method.correlation=1"]
)
def test_options_that_a_loss_refuses_are_told_before_there_is_a_folder(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = "simclr" if "temperature" in option else "parametric_gmje"
    asked = ["experiment=benchmark", f"method={method}", "data=digits", "logger=csv"]
    with pytest.raises(SystemExit) as error:
        main([*asked, option, f"output_root={tmp_path}"])
    assert error.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert option.partition(".")[2].partition("=")[0] in told
    assert not list(tmp_path.iterdir())


def test_more_labels_than_a_class_has(data: ImageData) -> None:
    most = int(data.train.labels.bincount().max())
    training.check(_with_labels(most), data)
    with pytest.raises(SettingsError, match=f"at most the images of a class, {most}, got"):
        training.check(_with_labels(most + 1), data)


def _with_labels(count: int) -> Settings:
    return replace(SETTINGS, evaluation=replace(SETTINGS.evaluation, labels_per_class=count))


def test_too_few_images_for_a_batch(data: ImageData) -> None:
    few = replace(data, train=ImageSet(data.train.images[:10], data.train.labels[:10]))
    training.check(SETTINGS, data)
    with pytest.raises(SettingsError, match="at most the number of training images, 10, got 64"):
        training.check(SETTINGS, few)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(data: ImageData) -> None:
    with pytest.raises(SettingsError, match="torch sees no GPU"):
        training.check(settings("trainer.accelerator=cuda"), data)
