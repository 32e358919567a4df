"""The page of a report, as HTML and as Markdown: whole in itself, and safe to open."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from tests.harness.reports import JPEG, reported, training


def test_results_come_before_their_provenance(tmp_path: Path) -> None:
    training(tmp_path, seed=1)
    page, text = reported(tmp_path)
    assert text.index("linear %") < text.index("## Provenance") < text.index("## How to rerun")
    assert page.text.count(JPEG) == 2  # the section's caption, and the provenance


def test_the_page_needs_nothing_else_and_its_ids_are_its_own(tmp_path: Path) -> None:
    training(tmp_path, seed=1, curves=True)
    training(tmp_path, "bank=smc", seed=1, curves=True)
    training(tmp_path, seed=3, finished=False, curves=True)
    page, text = reported(tmp_path)
    tags = page.tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:image/svg+xml;base64,"))
    whole = (tmp_path / "the report/report.html").read_text()
    assert not re.search(r"https?:|@import|url\((?!#)", whole)
    ids = [value for _, attributes in tags for name, value in attributes.items() if name == "id"]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', whole)
    assert targets
    assert set(targets) <= set(ids)
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 3
    assert all(picture["alt"] for picture in pictures)
    scopes = [attributes.get("scope") for tag, attributes in tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    places = {
        attributes["aria-labelledby"] for _, attributes in tags if "aria-labelledby" in attributes
    }
    assert places
    assert places <= set(ids)
    files = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(files) == 3
    for file in files:
        ElementTree.parse(tmp_path / "the report" / file)


def test_what_comes_from_files_is_shown_as_it_is_and_does_nothing(tmp_path: Path) -> None:
    title = '<script>alert(1)</script> | $\\frac "quoted" & `code` [x](http://e.vil) ]]>'
    command = ["experiment=banks", "note=it's <b> `here` ```", "line\nbreak"]
    training(tmp_path, seed=1, title=title, command=command, data=f"<i>{JPEG}", curves=True)
    page, text = reported(tmp_path)
    assert title in page.rows("configuration")
    assert not {"script", "i", "b"} & {tag for tag, _ in page.tags}
    assert """python -m harness experiment=banks 'note=it'"'"'s <b> `here` ```' """ in page.text
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert "````sh\npython -m harness" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if "linear" in line]
    row = next(line for line in lines if "quoted" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == first[0]


def test_every_command_is_there_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        training(tmp_path, seed=seed, command=["-m", "experiment=banks", "seed=1,2"])
    training(tmp_path, "bank=smc", seed=1)
    _, text = reported(tmp_path)
    commands = [line for line in text.splitlines() if line.startswith("python -m harness")]
    assert commands == [
        "python -m harness -m experiment=banks seed=1,2",
        "python -m harness bank=smc seed=1",
    ]


def test_a_report_made_again_is_the_same_and_leaves_nothing_else(tmp_path: Path) -> None:
    training(tmp_path / "runs", seed=1, curves=True)
    reported(tmp_path, tmp_path / "runs")
    files = {p: p.read_bytes() for p in (tmp_path / "the report").rglob("*") if p.is_file()}
    reported(tmp_path, tmp_path / "runs")
    again = {p: p.read_bytes() for p in (tmp_path / "the report").rglob("*") if p.is_file()}
    assert again == files
    assert len(files) == 5
