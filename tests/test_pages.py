"""README and the guides: links lead somewhere, and commands are ones that the harness takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness.commands import settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github/site/pages/guides").glob("*.md"))]
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
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGES[0].read_text(), re.M | re.S)
    hidden = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {"z_c": hidden, "z_t": hidden[:, :4].abs() + 0.1 * hidden[:, 2:]}
    exec(snippet, found)
    assert found["predicted"].sample((3,)).shape == (3, 5, 4)
    assert found["mean"].shape == (5, 4)
    assert found["score"].isfinite().all()
