"""``python -m harness report FOLDERS...``: trainings as one page beside the paper's numbers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.files import write_all
from harness.report import html, latents, page
from harness.report.markdown import Picture
from harness.report.reading import Run, experiments, read, untrained
from harness.report.summary import sections
from harness.settings import SettingsError

_MARKDOWN, _HTML, _RECORDS = "report.md", "report.html", "runs.json"
_RECORDED = ("title", "seed", "data", "metrics", "wall_time_s", "commit", "command")


def main(arguments: Sequence[str]) -> None:
    """Reads the command line, writes the report and says where it is.

    Raises:
        SettingsError: If there is nothing to report or no place to write to.
    """
    parser = argparse.ArgumentParser(
        prog="python -m harness report",
        description=f"Writes {_MARKDOWN} and {_HTML}, one page on all trainings below the folders, "
        f"and {_RECORDS}, their metrics.",
    )
    parser.add_argument(
        "folders", metavar="FOLDER", type=Path, nargs="*", help="trainings at any depth"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("report"))
    asked = parser.parse_args(arguments)
    if not asked.folders:
        raise SettingsError("report needs at least one folder of trainings, for example outputs")
    left_out = write_report(asked.folders, asked.out)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    for name in (_MARKDOWN, _HTML, _RECORDS):
        print(asked.out / name)


def write_report(folders: Sequence[Path], out: Path) -> list[str]:
    """Writes the report of all trainings below folders.

    Args:
        folders: Trainings or folders that hold them at any depth.
        out: The folder to write to; a report made before is replaced.

    Returns:
        A line for each thing that was left out; the page has them too.

    Raises:
        SettingsError: If no training can be read, or the folder cannot be written.
    """
    runs, left_out = read(folders)
    gathered = experiments(folders)
    tables, repeated = sections([*untrained(gathered), *runs])
    left_out += repeated
    unfinished = [run for run in runs if not run.results]
    parts = [
        *page.results(tables, unfinished, left_out),
        *latents.build(gathered),
        *page.provenance(tables),
    ]
    pictures = {part.path: part.content for part in parts if isinstance(part, Picture)}
    text = "\n\n".join(map(str, parts)) + "\n"
    written = {_MARKDOWN: text, _HTML: html.render(text, pictures), _RECORDS: _records(runs)}
    try:
        write_all(out, pictures | {name: text.encode() for name, text in written.items()})
    except OSError as error:
        raise SettingsError(f"cannot write the report to {out}: {error}") from error
    return left_out


def _records(runs: Sequence[Run]) -> str:
    """The finished runs' metrics as JSON, under each machine that they were measured on."""
    machines: dict[str, dict[str, Any]] = {}
    for results in (run.results for run in runs if run.results):
        machine = {name: results[name] for name in ("hardware", "versions")}
        there = machines.setdefault(json.dumps(machine, sort_keys=True), {**machine, "runs": []})
        there["runs"].append({name: results[name] for name in _RECORDED})
    for machine in machines.values():
        machine["runs"].sort(key=lambda record: (record["title"], record["seed"]))
    return json.dumps([*machines.values()], indent=1) + "\n"
