"""Every file in configs/ composes under the strict schema, and says what it should."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from gmje_plugin import SMCMemoryBankModule
from gmje_plugin.resampling import SCHEMES
from harness.methods.banks import SMCBankSettings
from harness.settings import MethodSettings, QuickstartSettings, RowSettings, register_schemas
from tests.harness.commands import ROOT, settings

CONFIGS = ROOT / "configs"
TOP_LEVEL = ["experiment", "data", "backbone", "trainer", "logger"]
OF_EXPERIMENT = ["method", "scale"]
SCALES = ["paper", "reduced"]


def options(group: str) -> list[str]:
    """The YAML files of a group and the dataclasses that are registered for it."""
    register_schemas()
    registered = ConfigStore.instance().repo.get(group, {})
    files = (CONFIGS / group).glob("*.yaml")
    return sorted(Path(name).stem for name in [*registered, *files])


@pytest.fixture(scope="module")
def rows() -> dict[str, RowSettings]:
    experiment = settings().experiment
    assert isinstance(experiment, QuickstartSettings)
    return experiment.rows


@pytest.mark.parametrize(
    "option", [f"{group}={name}" for group in TOP_LEVEL for name in options(group)]
)
def test_every_option_of_a_group_composes(option: str) -> None:
    needed = {"backbone=timm": ["backbone.name=resnet50"], "trainer=paper": PAPER}
    settings(option, *needed.get(option, []))


PAPER = ["experiment=benchmark", "scale=paper"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", options("method"))
def test_every_method_composes_at_every_scale(method: str, scale: str) -> None:
    found = settings("experiment=benchmark", f"method={method}", f"scale={scale}")
    assert found.method is not None
    assert found.method.name == method
    if scale == "paper":
        assert (found.method.hidden_dim, found.method.output_dim) == (512, 128)
        # The printed sums over features are means of ours.
        printed = 128 if method in ("parametric_gmje", "gmje_mdn") else 1
        steps = found.method.learning_rate / printed, found.method.weight_decay * printed
        assert steps == (0.06, 5e-4)
    else:
        assert (CONFIGS / "recipe" / scale / f"{method}.yaml").exists()
    assert found.trainer.epochs == (200 if scale == "paper" else 2)


@pytest.mark.parametrize("bank", options("bank"))
def test_every_bank_composes(bank: str) -> None:
    found = settings("experiment=banks", f"bank={bank}").bank
    assert found is not None
    assert (found.name, found.size) == (bank, 256)


def test_the_papers_protocols() -> None:
    banks = settings("experiment=banks", "scale=paper")
    assert (banks.trainer.epochs, banks.seed, banks.backbone.name) == (1000, 42, "resnet18")
    benchmark = settings("experiment=benchmark", "scale=paper", "method=smc_gmje")
    assert benchmark.bank is not None
    assert (benchmark.bank.name, benchmark.bank.size) == ("smc_paper", 4096)
    assert benchmark.evaluation.probe == "paper"


def test_experiment_3_is_the_one_whose_results_are_shown() -> None:
    """Options renamed or added since are left out."""
    shown = yaml.safe_load((ROOT / "harness/results/experiment3/config.yaml").read_text())
    del shown["backbone"]["name"]  # another now, its sizes are the same

    def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
        if not isinstance(then, dict):
            if then != now:
                yield f"{path.removeprefix('.')}: {then} -> {now}"
            return
        for key in then.keys() & now.keys():
            yield from differences(then[key], now[key], f"{path}.{key}")

    now = settings("experiment=mnist_latents", "experiment.completion_epochs=5", "logger=csv")
    assert list(differences(shown, asdict(now))) == []


def test_every_folder_is_a_group_that_is_tested() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    sweeps = {"sweep"}  # W&B's and no group of Hydra's: tests/harness/test_sweeps.py
    registered = {"method", "bank", "backbone", "logger"}
    assert registered <= {*ConfigStore.instance().repo}
    assert not registered & folders  # one place for each
    assert folders | registered == {*TOP_LEVEL, *OF_EXPERIMENT, "bank", "recipe"} | sweeps
    recipes = {path.name for path in (CONFIGS / "recipe").iterdir()} - {"bank.yaml"}
    assert recipes == set(SCALES) == {*options("scale")}


def test_every_file_says_what_it_is() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        lines = path.read_text().removeprefix("# @package _global_\n")
        assert lines.startswith("# "), path


def test_compared_banks_share_all_other_options(rows: dict[str, RowSettings]) -> None:
    def others(name: str) -> tuple[MethodSettings, int]:
        assert rows[name].bank is not None
        return rows[name].method, rows[name].bank.size

    assert others("moco_fifo") == others("moco_smc") == others("moco_smc_paper")
    assert "in-batch" in rows["moco_smc_in_batch"].title


def test_bank_defaults_are_the_modules(rows: dict[str, RowSettings]) -> None:
    for name, module in {
        "moco_smc": SMCMemoryBankModule((8, 2)),
        "moco_smc_paper": SMCMemoryBankModule.paper((8, 2)),
    }.items():
        bank = rows[name].bank
        assert isinstance(bank, SMCBankSettings)
        for option in ("resampling", "ess_threshold", "count_own_query"):
            assert getattr(bank, option) == getattr(module, option), (name, option)


def test_a_bank_can_have_every_scheme() -> None:
    scheme = next(item for item in fields(SMCBankSettings) if item.name == "resampling")
    assert set(scheme.metadata["choices"]) == set(SCHEMES)


def test_one_bank_is_a_batch_as_in_the_paper(rows: dict[str, RowSettings]) -> None:
    bank = rows["moco_smc"].bank
    assert bank is not None
    assert bank.size == settings().trainer.batch_size
