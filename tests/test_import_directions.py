"""The arrows of the design, read off the source: who may import whom."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each package-internal module may import these and what comes with them, besides `distributed`,
# `options` and `validation`, which all may import.
ALLOWED = {
    "": {"loss", "modules", "density", "registry", "resampling"},
    "registry": {"loss", "modules"},
    "loss": {"loss", "modules", "density", "kernels", "linalg", "log_sum_exp"},
    "modules": {"modules", "resampling", "kernels", "linalg", "log_sum_exp"},
    "density": {"density", "kernels", "linalg", "resampling"},
    "resampling": set(),
    "kernels": set(),
    "log_sum_exp": set(),
    "linalg": set(),
    "distributed": set(),
    "validation": set(),
    "options": set(),
}
LIGHTLY = {
    "gmje_plugin/modules/smc_memory_bank.py",
    "gmje_plugin/loss/smc_ntxent_loss.py",
    "gmje_plugin/distributed.py",
    "gmje_plugin/registry.py",
}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(dotted: str) -> str:
    """``gmje_plugin.loss.x.Y`` -> ``loss``; a public name of the package itself -> ``""``."""
    parts = dotted.split(".")[1:]
    return parts[0] if parts and parts[0] in ALLOWED else ""


PLUGIN = sorted((ROOT / "gmje_plugin").rglob("*.py"))
HARNESS = sorted((ROOT / "harness").rglob("*.py"))


@pytest.mark.parametrize("path", PLUGIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugin(path: Path) -> None:
    relative = path.relative_to(ROOT)
    room = relative.parts[1].removesuffix(".py").replace("__init__", "")
    for name in imports_of(path):
        top = name.split(".")[0]
        if top == "gmje_plugin":
            target = room_of(name)
            assert target in ALLOWED[room] | {"distributed", "options", "validation"}, name
        elif top == "lightly":
            assert str(relative) in LIGHTLY, name
        elif name.startswith("torch.distributed") and "distributions" not in name:
            assert str(relative) == "gmje_plugin/distributed.py", name
        else:
            assert top == "torch" or top in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: str(path.relative_to(ROOT)))
def test_harness_uses_public_names_only(path: Path) -> None:
    import gmje_plugin

    for name in imports_of(path):
        parts = name.split(".")
        assert parts[0] != "lightning", f"{name}: use pytorch_lightning, as lightly does"
        if parts[0] == "gmje_plugin" and len(parts) > 1:
            assert parts[1] in gmje_plugin.__all__ or parts[1] == "__version__", name


def test_the_plugin_needs_torch_and_lightly_only() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [need.split(">")[0] for need in project["dependencies"]] == ["torch", "lightly"]
