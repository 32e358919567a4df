import ast
import doctest
import inspect
import re
import subprocess
import sys

import pytest

import gmje_plugin

CONTRACT = {
    "SMCMemoryBankModule",
    "SMCNNMemoryBankModule",
    "SMCNTXentLoss",
    "GMJEPrototypeLoss",
    "GMJEMDNHead",
    "GMJEMDNLoss",
    "GJEEntropyLoss",
    "GJENLLLoss",
    "GJEDualLoss",
    "HSICLoss",
    "JointSMCLoss",
    "GrowingNeuralGas",
    "JointGaussian",
    "JointGaussianMixture",
    "JointStudentTMixture",
    "swap_memory_bank",
    "register",
    "unregister",
    "resampling",
}
CLASSES = sorted(name for name in CONTRACT if name[0].isupper())


def test_exactly_the_contract_is_public() -> None:
    assert set(gmje_plugin.__all__) == CONTRACT
    assert all(hasattr(gmje_plugin, name) for name in CONTRACT)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_documented_with_an_example(name: str) -> None:
    component = getattr(gmje_plugin, name)
    doc = inspect.getdoc(component) or ""
    assert doctest.DocTestParser().get_examples(doc), f"{name} has no example"
    assert "Huang 2026" in doc
    methods = {k: v for k, v in vars(component).items() if k[0] != "_" and callable(v)}
    for method, function in methods.items():
        assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize("name", CLASSES)
def test_options_are_attributes_or_documented(name: str) -> None:
    component = getattr(gmje_plugin, name)
    doc = inspect.getdoc(component) or ""
    for option in inspect.signature(component).parameters:
        assert f"{option}:" in doc or f"``{option}``" in doc, f"{name}({option}) is undocumented"


def test_importing_the_plugin_neither_needs_the_harness_nor_patches_lightly() -> None:
    script = (
        "import sys, lightly.loss, lightly.models.modules\n"
        "before = set(vars(lightly.loss)) | set(vars(lightly.models.modules))\n"
        "loaded = set(sys.modules)\n"  # lightly itself may load W&B, by way of timm
        "import gmje_plugin\n"
        "after = set(vars(lightly.loss)) | set(vars(lightly.models.modules))\n"
        "assert before == after\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - loaded}\n"
        "assert not {'harness', 'wandb', 'sklearn', 'matplotlib', 'hydra'} & new, new\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", CLASSES)
def test_documented_defaults_are_the_defaults(name: str) -> None:
    component = getattr(gmje_plugin, name)
    doc = inspect.getdoc(component) or ""
    for option, parameter in inspect.signature(component).parameters.items():
        if entry := re.search(rf"^    {option}: (.*?)(?=^    \S|^\S|\Z)", doc, re.S | re.M):
            told = re.search(r"Default: (-?[\d.e-]*\d|None|True|False|\"\w+\")", entry[1])
            if told:
                assert ast.literal_eval(told[1]) == parameter.default, option
