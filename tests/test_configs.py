"""Every file in configs/ composes under the strict schema, and says what it should."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from gmje_plugin import SMCMemoryBankModule
from harness.settings import MoCoSettings, QuickstartSettings, RowSettings, SMCBankSettings
from tests.harness.commands import ROOT, settings

CONFIGS = ROOT / "configs"
TOP_LEVEL = ["experiment", "data", "backbone", "trainer", "logger"]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def rows() -> dict[str, RowSettings]:
    experiment = settings().experiment
    assert isinstance(experiment, QuickstartSettings)
    return experiment.rows


@pytest.mark.parametrize(
    "option", [f"{group}={name}" for group in TOP_LEVEL for name in options(group)]
)
def test_every_option_of_a_group_composes(option: str) -> None:
    settings(option, *(["backbone.name=resnet50"] if option == "backbone=timm" else []))


@pytest.mark.parametrize("group", ["method", "bank"])
def test_the_quickstart_uses_every_method_and_bank(group: str) -> None:
    text = (CONFIGS / "experiment" / "quickstart.yaml").read_text()
    for name in options(group):
        assert f": {name}\n" in text, name


def test_every_folder_is_a_group_that_is_tested() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert folders == {*TOP_LEVEL, "method", "bank"}


def test_every_file_says_what_it_is() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_text().startswith("#"), path


def test_compared_banks_share_all_other_options(rows: dict[str, RowSettings]) -> None:
    def others(name: str) -> dict[str, object]:
        method = asdict(rows[name].method)
        return {**method, "bank": method["bank"]["size"]}

    assert others("moco_fifo") == others("moco_smc") == others("moco_smc_paper")
    assert "in-batch" in rows["moco_smc_in_batch"].title


def test_bank_defaults_are_the_modules(rows: dict[str, RowSettings]) -> None:
    for name, module in {
        "moco_smc": SMCMemoryBankModule((8, 2)),
        "moco_smc_paper": SMCMemoryBankModule.paper((8, 2)),
    }.items():
        method = rows[name].method
        assert isinstance(method, MoCoSettings)
        bank = method.bank
        assert isinstance(bank, SMCBankSettings)
        for option in ("resampling", "ess_threshold", "count_own_query"):
            assert getattr(bank, option) == getattr(module, option), (name, option)


def test_one_bank_is_a_batch_as_in_the_paper(rows: dict[str, RowSettings]) -> None:
    method = rows["moco_smc"].method
    assert isinstance(method, MoCoSettings)
    assert method.bank.size == settings().trainer.batch_size
