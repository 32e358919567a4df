"""Trainings made up here, every number of which is known, and the report of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from harness import runs
from harness.__main__ import main
from harness.settings import QuickstartSettings, Settings
from harness.tracking import METRICS_FILE, MetricsFile, MetricsRow, RunFolder, provenance
from tests.harness.commands import settings

JPEG = "CIFAR-10 (JPEG): 50000 training images, 10000 test images"
FIFO = "MoCo v2, FIFO, M = 256"
EPOCHS, STEPS = 4, 12
USUAL = ["experiment=banks", "backbone=small_cnn", f"trainer.epochs={EPOCHS}"]


def training(
    root: Path,
    *words: str,
    seed: int,
    title: str = "",
    data: str = JPEG,
    finished: bool = True,
    curves: bool = False,
    command: Sequence[str] = (),
    resumed_at_step: int = 0,
) -> Path:
    """Fills a folder as a training of these words does; its numbers follow from them.

    Without ``curves`` it has logged nothing that the report draws, which takes time.
    """
    asked = replace(_asked(*words), seed=seed, output_root=str(root))
    words = (*words, f"seed={seed}")
    folder = RunFolder.of_command(asked, words)
    generator = np.random.default_rng(zlib.crc32(folder.path.name.encode()))
    rows = list(_logged(asked, generator))
    accuracy = rows[-1]["eval/online_accuracy"] if rows else 0.3 + seed / 1000
    results = {
        "experiment": asked.experiment.name,
        "title": title or runs.title(asked),
        "seed": seed,
        "data": data,
        "metrics": {
            "knn_accuracy": accuracy,
            "linear_accuracy": accuracy + 0.05 + 0.002 * generator.normal(),
            "online_accuracy": accuracy,
            "effective_rank": 30 + generator.normal(),
            "uniformity": -2.1,
            "alignment": 0.4,
            "dead_dimensions": 0.0,
        },
        "wall_time_s": 130.2 + seed,
        "resumed_at_step": resumed_at_step,
        **_provenance(),
        "command": [*(command or words)],
    }
    if not finished:
        rows = rows[: len(rows) // 2]
    if not curves:
        rows = [{"step": 0, "epoch": 0}]
    with folder.started():
        metrics = MetricsFile(folder.path / METRICS_FILE)
        for row in rows:
            metrics.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        metrics.finalize("success")
        if finished:
            folder.write_results(results)
    return folder.path


_provenance = cache(provenance)


@cache
def _asked(*words: str) -> Settings:
    asked = settings(*{word.partition("=")[0]: word for word in (*USUAL, *words)}.values())
    if isinstance(asked.experiment, QuickstartSettings):  # one of its trainings
        row = asked.experiment.rows["moco_fifo"]
        return replace(asked, method=row.method, bank=row.bank)
    return asked


def _logged(asked: Settings, generator: np.random.Generator) -> Iterator[MetricsRow]:
    """The lines of metrics.csv: a loss that falls, and an accuracy that rises."""
    for step in range(asked.trainer.epochs * STEPS):
        share = (step + 1) / (asked.trainer.epochs * STEPS)
        at: MetricsRow = {"step": step, "epoch": step // STEPS}
        line = {**at, "train/loss": 5.5 - 1.5 * share**0.3 + 0.05 * generator.normal()}
        if asked.bank and step > 2:
            line["bank/ess_ratio"] = 1 - 0.3 * share + 0.02 * generator.normal()
            line["bank/unique_fraction"] = 0.6 if asked.bank.name == "smc_paper" else 1.0
        yield line
        if (step + 1) % STEPS == 0:
            yield {
                **at,
                "eval/online_accuracy": 0.3 + 0.25 * share**0.5 + 0.004 * generator.normal(),
            }


class Page(HTMLParser):
    """What a reader gets from a page: its tables by caption, its text, its tags."""

    VOID = frozenset({"meta", "br", "path", "use", "rect"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.tables: list[list[list[str]]] = []
        self.bold: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "strong" in self.open:
            self.bold.append(data)

    def rows(self, corner: str, *, number: int = 0) -> dict[str, dict[str, str]]:
        """The table with this first heading (the ``number``-th), by row and column heading."""
        (header, *lines) = [t for t in self.tables if t[0][0] == corner][number]
        found = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
        assert len(found) == len(lines)
        return found


def reported(root: Path, *folders: Path) -> tuple[Page, str]:
    """Runs the command; the page, and the Markdown."""
    out = root / "the report"
    main(["report", *map(str, folders or [root]), "--out", str(out)])
    return Page((out / "report.html").read_text()), (out / "report.md").read_text()


def metric(folders: list[Path], name: str) -> np.ndarray[Any, Any]:
    found = [json.loads((folder / "results.json").read_text())["metrics"] for folder in folders]
    return np.array([metrics[name] for metrics in found])
