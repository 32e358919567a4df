"""What is wrong with a command line is one clear line and exit code 2, before anything starts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from harness.settings import (
    SettingsError,
    command_line,
    help_text,
    one_line,
    register_schemas,
    resolve,
)
from tests.harness.commands import composed, environment, harness, settings

ROW = "experiment.rows.moco_smc"
WRONG = {
    # misspelt keys
    "trainer.epoch=3": "Key 'epoch' not in 'TrainerSettings' (did you mean 'epochs'?)",
    "+trainer.epoch=3": "trainer.epoch: there is no such option",
    f"+{ROW}.bank.sise=3": f"{ROW}.bank.sise: there is no such option",
    "sed=1": "sed: Key 'sed' not in 'Settings' (did you mean 'seed'?)",
    "experiment=quick": "experiment=quick: there is no such config, only banks, benchmark, ",
    "data=cifar11": "data=cifar11: there is no such config, only cifar10, digits, folder, mnist",
    "experiment.rows.moco_fifo.bank.ess_threshold=0.1": "not in 'FIFOBankSettings'",
    "experiment=banks bank=fifo bank.ess_threshold=0.1": "BankSettings' (which has name, size)",
    "backbone=timm": "backbone.name must be given",
    "experiment=benchmark method=simclr bank=fifo": "bank: there is none to choose without",
    "scale=paper": "are for benchmark, banks and mnist_latents, not quickstart",
    # wrong types
    "trainer.epochs=1.5": "trainer.epochs: Value '1.5' of type 'float' could not be converted",
    "trainer.epochs=true": "trainer.epochs: Value 'True' of type 'bool' could not be converted",
    "seed=": "seed: Value '' of type 'str' could not be converted to Integer",
    "experiment.rows=3": "experiment.rows: Cannot assign int",
    "experiment.rows.byol.title=SimCLR": "experiment.rows.byol.title must be its own, 'SimCLR' is",
    "data.split=null": "data.split: field 'data.split' is not Optional",
    # out of range
    "trainer.epochs=-1": "trainer.epochs must be finite, at least 0, got -1",
    "backbone.strides=[1,9]": "backbone.strides must be finite, at least 1 and at most 4, got [1, ",
    "backbone.strides=[]": "backbone.strides must hold at least one number",
    "seed=-1": "seed must be finite, at least 0 and at most 2147483648, got -1",
    f"{ROW}.method.temperature=0": f"{ROW}.method.temperature must be finite, above 0.0, got 0.0",
    f"{ROW}.method.temperature=inf": f"{ROW}.method.temperature must be finite, above 0.0, got i",
    f"{ROW}.method.momentum=1": f"{ROW}.method.momentum must be finite, at least 0.0 and below",
    f"{ROW}.bank.ess_threshold=nan": f"{ROW}.bank.ess_threshold must be finite",
    f"{ROW}.bank.resampling=best": f"{ROW}.bank.resampling must be one of without_replacement, ",
    "logger.mode=off": "logger.mode must be one of offline, online, got 'off'",
    # not together
    "method=simclr": "method and bank are for benchmark and banks",
    "+bank=smc": "method and bank are for benchmark and banks",
    "experiment.rows.moco_smc_paper.bank.resampling=systematic": "bank=smc_paper is Algorithm 2",
    "logger=csv logger.mode=online": "logger.mode=online is for logger=wandb, not csv",
    "experiment=banks method=simclr": "experiment=banks compares banks, and simclr has none",
    "experiment=benchmark method=smc_gmje bank=fifo": "bank=fifo with smc_gmje is MoCo",
    "trainer.batch_size=8 trainer.devices=8": "at least 2 images for each of the 8 devices",
    "evaluation.knn_t=0.01": "evaluation.knn_t must be finite, at least 0.02",
    "experiment.rows.moco_smc.bank=null": "experiment.rows.moco_smc.bank must be chosen for moco",
    "+bank@experiment.rows.byol.bank=smc": "experiment.rows.byol.bank is for moco, smc_gmje and",
    "experiment.rows.byol.method.num_views=3": "experiment.rows.byol.method.num_views must be 2",
    "trainer.devices=3": "trainer.batch_size must be a multiple of the 3 devices that share it",
    "evaluation.labels_per_class=0": "evaluation.labels_per_class must be finite, at least 1",
    "trainer.devices=0": "trainer.devices must be finite, at least 1, got 0",
    "experiment=benchmark method=gmje_mdn method.encoder_momentum=0.3": (
        "method.encoder_momentum needs method.momentum_encoder=true"
    ),
    "trainer.epochs=0": "trainer.epochs must be at least 1 for quickstart",
    # not Hydra's grammar
    "seed=1,2": "Ambiguous value for argument 'seed=1,2': -m runs the command once for each",
    "epochs": "Error parsing override 'epochs'",
    "reports": "commands bench, export, gpu, report (did you mean 'report'?)",
}


def test_a_missing_bank_is_one_problem() -> None:
    config = composed("experiment=banks")
    config.bank = None
    with pytest.raises(SettingsError) as error:
        resolve(config)
    assert str(error.value) == "bank must be chosen for moco (bank=fifo, smc or smc_paper)"


def test_a_missing_name_is_named_where_a_debugger_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OC_CAUSE", "1")  # what OmegaConf does under sys.settrace, as of coverage
    with pytest.raises(SettingsError, match=r"backbone\.name must be given"):
        settings("backbone=timm")


@pytest.mark.parametrize("override", WRONG)
def test_wrong_options_are_one_clear_line(override: str) -> None:
    with pytest.raises((SettingsError, HydraException, OmegaConfBaseException)) as caught:
        settings(*override.split(" "))
    error = caught.value
    message = str(error) if isinstance(error, SettingsError) else one_line(error)
    assert WRONG[override] in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["trainer.epoch=3"],  # Hydra's own error
        ["trainer.epochs=-1"],  # ours, from within Hydra's job
        ["trainer.batch_size=5000"],  # known only once the data are there
        ["~experiment.rows.byol", "trainer=null"],  # a ValueError of Hydra's
        ["experiment=benchmark", "bank=smc"],  # SimCLR has no bank
        ["--epochs", "3"],  # argparse's
        ["bench", "tank"],
        ["bench", "bank", "--sizes", "0"],
    ],
    ids=" ".join,
)
def test_the_command_refuses_before_anything_starts(arguments: list[str], tmp_path: Path) -> None:
    done = harness(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_none_means_none_where_it_is_a_choice() -> None:
    settings(f"{ROW}.bank.ess_threshold=null")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"epochs.*; .*batch_size.*; seed"):
        settings("trainer.epochs=-1", "trainer.batch_size=0", "seed=-1")


@pytest.fixture(scope="module")
def options() -> dict[str, list[Field[Any]]]:
    """Every option by its full name, as often as there are choices that have it."""
    register_schemas()
    found: dict[str, list[Field[Any]]] = {}
    for path, kind in command_line.option_groups():
        for schema in command_line.kinds(kind):
            for item in fields(schema):
                found.setdefault(f"{path}.{item.name}".removeprefix("."), []).append(item)
    groups = [path for path, _ in command_line.option_groups()]
    return {
        name: items
        for name, items in found.items()
        if name not in groups and (not name.endswith(".name") or name == "backbone.name")
    }


def test_every_option_says_what_it_is(options: dict[str, list[Field[Any]]]) -> None:
    assert {"seed", "trainer.epochs", "method.temperature", "bank.ess_threshold"} <= {*options}
    for name, items in options.items():
        assert any(item.metadata.get("help") for item in items), name


@pytest.mark.parametrize("width", [80, 120])
def test_help_has_every_option_and_fits(width: int, options: dict[str, list[Field[Any]]]) -> None:
    lines = help_text(width).splitlines()
    assert max(map(len, lines)) <= width
    typed = [line.strip().partition("=")[0].partition(" ")[0] for line in lines]
    for name in options:
        assert name in typed, name
    told = " ".join(" ".join(lines).split())
    for words in (
        "trainer.epochs=200 Passes over the training images; 0 evaluates the untrained network. "
        "[P] (int >= 0)",
        "method.optimizer=sgd torch's optimizer, or lightly's LARS. (sgd | lars | adamw)",
        "bank.ess_threshold=0.5 Share of the pool",
        "backbone.strides=[1,2,2] Stride of each layer. (list[int] >= 1, <= 4)",
        "Sets in_batch_negatives=true.",
        "scale=reduced has settings found on CIFAR-10 (JPEG)",
        "experiment: banks, benchmark, failure_modes, mnist_latents, quickstart (default), "
        "synthetic",
        "bank: fifo, smc",
        "data.views.crop_min=1.0 Least share of the area of torchvision's random resized crop; 1 "
        "is off. (float > 0, <= 1)",
        "Sets data=cifar10, method=moco, scale=reduced, experiment.paper_epochs=1000",
    ):
        assert words in told, words
    assert not {"schema", "recipe", "sweep"} & {line.strip().split(":")[0] for line in lines}


def test_an_option_stands_under_the_choices_that_have_it() -> None:
    lines = [line.split()[0] for line in help_text(80).splitlines() if line.strip()]
    simclr = lines.index("method=simclr")
    assert "method.temperature=0.5" in lines[simclr + 1 : simclr + 9]
    smc = lines.index("bank=smc")
    assert [word for word in lines[smc:] if word.startswith("bank")] == [
        "bank=smc",
        "bank=smc_paper",
        "bank.resampling=without_replacement",
        "bank.ess_threshold=0.5",
        "bank.count_own_query=false",
    ]


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["experiment=banks", "--help"]], ids=" ".join
)
def test_help_is_the_same_wherever_it_stands(words: list[str], tmp_path: Path) -> None:
    done = harness(*words, folder=tmp_path)
    assert done.returncode == 0
    assert "bench bank" in done.stdout
    assert done.stdout.split() == help_text(80).split()
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, harness.__main__ as h; h.main(['--help']); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
