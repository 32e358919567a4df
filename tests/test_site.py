"""What the site shows (``.github/site``): its examples run, its pages name what there is."""

from __future__ import annotations

import math
import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gmje_plugin

ROOT = Path(__file__).parents[1]
SITE = ROOT / ".github" / "site"
EXAMPLES = SITE / "examples"
PAGES = "\n".join(path.read_text() for path in SITE.glob("pages/**/*.md"))
# What Lightning's checkpoints hold of a method's criterion.
METHODS = {"moco": "memory_bank.bank", "simclr": "prototypes", "byol": "context_moment.moment"}
STEPS = 6  # 192 digits in batches of 32

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs an example as ``python NAME.py`` in an empty folder; the variables that it leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def ran(name: str) -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return ran


@pytest.mark.parametrize("name", METHODS)
def test_a_method_in_plain_pytorch(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(name)
    losses = [
        float(loss)
        for loss in re.findall(r"^loss ([^\s,]+)", capsys.readouterr().out, re.MULTILINE)
    ]
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loader workers
def test_a_method_in_lightning(name: str, run: Run, tmp_path: Path) -> None:
    trainer = run(f"{name}_lightning")["trainer"]
    assert trainer.global_step == STEPS
    assert math.isfinite(trainer.logged_metrics["loss"])
    (checkpoint,) = tmp_path.glob("lightning_logs/*/checkpoints/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    criterion = trainer.lightning_module.criterion.state_dict()
    assert torch.equal(state[f"criterion.{METHODS[name]}"], criterion[METHODS[name]])


def test_a_density_on_a_frozen_backbone(run: Run) -> None:
    """Held-out views: the mixture beats one Gaussian, and pairs strangers."""
    found = run("density")
    pairs, strangers = found["pairs"], found["strangers"]
    assert len(pairs) == 597
    mixture = found["mixture"].log_prob(pairs).mean()
    assert mixture > found["gaussian"].log_prob(pairs).mean() + 1.0
    assert mixture > found["mixture"].log_prob(strangers).mean() + 1.0
    assert found["error"] < found["spread"]


def test_every_example_is_short_tested_and_shown() -> None:
    tested = {*METHODS, *(f"{name}_lightning" for name in METHODS), "density"}
    files = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert {*files} == tested | {"digits"}
    assert all(text.count("\n") < 60 for text in files.values())
    shown = re.findall(r'--8<-- "\.github/site/examples/(\w+)\.py"', PAGES)
    assert sorted(shown) == sorted(files)


def test_the_reference_has_each_public_name_once_by_its_short_path() -> None:
    named = re.findall(r"^::: gmje_plugin\.(\w+)$", PAGES, flags=re.MULTILINE)
    introduction = "loss"  # the package's own docstring, above its members
    assert sorted(named) == sorted([*gmje_plugin.__all__, introduction])


def test_each_extra_that_is_installed_exists() -> None:
    """An unknown one is no error of pip's."""
    pages = [ROOT / ".github" / "CONTRIBUTING.md", ROOT / "README.md"]
    text = PAGES + "".join(page.read_text() for page in pages)
    named = re.findall(r"pip install -e '\.\[(\w+)\]'", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*named} == {*project["optional-dependencies"]}
