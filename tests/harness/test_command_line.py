"""What users type that Hydra does not take, and what they are told."""

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from gmje_plugin import __version__
from harness.__main__ import main
from harness.settings import SettingsError, as_hydra_reads, one_line, resolve
from tests.harness.commands import composed, harness


@pytest.mark.parametrize(
    "path", ["/home/josé/data", "/データ", "/data/set(1)", "/data/lr=0.1", "/a#b", "/it's", '/q"q']
)
@pytest.mark.parametrize("name", ["data.root", "output_root"])
def test_a_path_is_taken_as_it_is_typed(name: str, path: str) -> None:
    (word,) = as_hydra_reads([f"{name}={path}"])
    assert OverridesParser.create().parse_override(word).value() == path


def test_a_home_and_a_sweep_of_paths() -> None:
    assert as_hydra_reads(["data.root=~/data"]) == [f"data.root={os.path.expanduser('~/data')}"]
    assert as_hydra_reads(["data.root=a,b", "seed=1"]) == ["data.root=a,b", "seed=1"]


@pytest.mark.parametrize("group", ["scale", "method"])
def test_a_group_cannot_be_null(group: str) -> None:
    """An experiment that has a scale would take its own, reduced, in silence."""
    with pytest.raises(SettingsError, match=f"{group}=null: null is no choice"):
        as_hydra_reads(["experiment=benchmark", f"{group}=null"])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["experiment=benchmark", "method=simclr", "method.lr=0.1"], "method.learning_rate"),
        (["trainer.lr=0.1"], "method.learning_rate"),
        (["epochs=5"], "trainer.epochs"),
        (["batch_size=5"], "trainer.batch_size"),
        (["epochs"], "trainer.epochs"),
        (["train"], "trainer"),
    ],
)
def test_an_option_is_suggested(words: list[str], meant: str) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(*words)
    told = one_line(caught.value)
    assert told.endswith(f"(did you mean {meant!r}?)")
    assert "\n" not in told


def test_how_to_quote_other_values() -> None:
    with pytest.raises(HydraException) as caught:
        composed("experiment.rows.simclr.title=a(b)")
    expected = "'experiment.rows.simclr.title=\"a(b)\"'"
    assert one_line(caught.value).endswith(f"once for Hydra: {expected}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["experiment=synthetic", "trainer.devices=2", "backbone=timm", "backbone.name=x"],
            "trainer.devices, backbone, backbone.name: not used by experiment=synthetic",
        ),
        (
            ["experiment=failure_modes", "trainer.devices=4"],
            "trainer.devices: not used by experiment=failure_modes, which uses trainer.threads",
        ),
        (["scale=reduced"], "scale: not used by experiment=quickstart"),
        (["experiment=synthetic", "data/views=lightly"], "data.views: not used"),
    ],
)
def test_an_option_that_an_experiment_does_not_use(words: list[str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        resolve(composed(*words), words)


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=synthetic", "trainer.threads=1", "seed=3", "logger=csv"],
        ["trainer.epochs=3", "backbone.width=4", "evaluation.knn_k=5"],
        ["experiment=benchmark", "method=moco", "bank=smc", "bank.size=64", "scale=paper"],
    ],
)
def test_options_that_are_used(words: list[str]) -> None:
    resolve(composed(*words), words)


def test_an_option_of_a_method_that_is_not_chosen(tmp_path: Path) -> None:
    ran = harness("method.learning_rate=3", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "needs a choice first: method=simclr" in ran.stderr


def test_an_option_of_a_bank_that_is_not_chosen(tmp_path: Path) -> None:
    ran = harness("experiment=benchmark", "method=simclr", "bank.size=64", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "bank.size=64 needs a choice first: bank=fifo, where the method has one" in ran.stderr


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"gmje-plugin {__version__}\n"


def test_a_plain_error_of_hydras_is_one_line(tmp_path: Path) -> None:
    ran = harness("--resolve", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "The --resolve flag can only be used in conjunction with --cfg" in ran.stderr


def test_a_command_line_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "set(1)"
    command = ["experiment=failure_modes", "trainer.devices=4", f"output_root={out}"]
    ran = harness(*command, folder=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert not out.exists()
