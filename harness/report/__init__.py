"""``python -m harness report FOLDERS...``: trainings as one page beside the paper's numbers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.files import write_all
from harness.report import html, markdown
from harness.report.contents import contents
from harness.report.document import Picture
from harness.report.latents import latents
from harness.report.reading import Run, read
from harness.report.summary import sections
from harness.settings import SettingsError

__all__ = ["main"]

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
        f"and {_RECORDS}, their figures.",
    )
    parser.add_argument(
        "folders", metavar="FOLDER", type=Path, nargs="*", help="trainings at any depth"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("report"))
    asked = parser.parse_args(arguments)
    if not asked.folders:
        raise SettingsError("report needs at least one folder of trainings, for example outputs")
    left_out = report(asked.folders, asked.out)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(asked.out / _MARKDOWN)
    print(asked.out / _HTML)
    print(asked.out / _RECORDS)


def report(folders: Sequence[Path], out: Path) -> list[str]:
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
    tables, repeated = sections(runs)
    left_out += repeated
    unfinished = [run for run in runs if run.results is None]
    blocks = [*contents(tables, unfinished, left_out), *latents(folders)]
    pictures = [block for block in blocks if isinstance(block, Picture)]
    files = dict(map(markdown.picture_file, pictures))
    files |= {_MARKDOWN: markdown.render(blocks), _HTML: html.render(blocks)}
    files[_RECORDS] = _records(runs)
    try:
        write_all(out, {name: content.encode() for name, content in files.items()})
    except OSError as error:
        raise SettingsError(f"cannot write the report to {out}: {error}") from error
    return left_out


def _records(runs: Sequence[Run]) -> str:
    """The finished runs' figures as JSON, one a line, under each machine they were measured on."""
    machines: dict[str, list[str]] = {}
    for run in runs:
        if run.results is not None:
            machine = json.dumps({name: run.results[name] for name in ("hardware", "versions")})
            record = json.dumps({name: run.results[name] for name in _RECORDED})
            machines.setdefault(machine, []).append(record)
    told = [
        f'{machine[:-1]}, "runs": [\n' + ",\n".join(sorted(records)) + "\n]}"
        for machine, records in machines.items()
    ]
    return "[\n" + ",\n".join(told) + "\n]\n"
