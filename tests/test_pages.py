"""README and the site: links lead somewhere, and commands are ones that the harness takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness.commands import settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github/site/pages").rglob("*.md"))]
# README is on PyPI and the guides are on a site, where links must be absolute.
HERE = re.compile(
    r"https://(github\.com|raw\.githubusercontent\.com)/gmje-plugin/gmje-plugin/(blob/)?main/"
)
COMMANDS = [
    command
    for page in PAGES
    for command in re.findall(
        r"^python -m harness (.*)$", page.read_text().replace("\\\n", ""), flags=re.MULTILINE
    )
]
EXPERIMENTS = [command for command in COMMANDS if "experiment=" in command]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_this_repository_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        if here := HERE.match(name):
            target = ROOT / name[here.end() :]
        elif name.startswith("https://"):
            continue
        else:
            assert not name or page.name != "README.md", f"{link}: PyPI has no such page"
            target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_there_are_commands() -> None:
    assert len(EXPERIMENTS) > 10


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_experiments_of_the_pages_are_possible(command: str) -> None:
    """The first and the last job of a multirun."""
    words = [
        word.partition("=")
        for word in shlex.split(command, comments=True)
        if word != "-m" and not word.startswith(("hydra/", "hydra.", "+hydra."))
    ]
    for job in (0, -1):
        settings(*(f"{name}={values.split(',')[job]}" for name, _, values in words))


def test_the_density_of_readme_runs_as_printed() -> None:
    """Its regions of 90 % hold 90 % of 1,000 new pairs: a standard error of one point."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGES[0].read_text(), re.M | re.S)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 4, generator=generator)
    normal, scales = torch.randn(2, 4000, 4, generator=generator)
    residuals = normal / scales.square().mean(dim=1, keepdim=True).sqrt()  # t, 4 degrees of freedom
    contexts, targets = hidden, hidden.cumsum(dim=1) + residuals
    found: dict[str, Any] = {}
    for name, views in {"c": contexts, "t": targets}.items():
        found[f"z_{name}"], found[f"held_{name}"], found[f"new_{name}"] = views.split(
            [2000, 1000, 1000]
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(snippet, found)
    assert found["draws"].shape == (500, 1000, 4)
    assert 0.86 < found["inside"].double().mean() < 0.94
    assert found["score"].isfinite().all()
