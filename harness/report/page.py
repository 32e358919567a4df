"""What a report says, in its order."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.metrics import METRICS, metric
from harness.report.markdown import Picture, Table, bullets, commands, escape, heading
from harness.report.pictures import every_run, figure_8
from harness.report.reading import Run
from harness.report.summary import (
    Row,
    Section,
    Source,
    differences,
    option,
    sources,
)
from harness.tracking import RESULTS

Part = str | Table | Picture

_GLOSSARY = (
    "Accuracies are in percent, of frozen features: of a linear probe, of weighted nearest "
    "neighbours (kNN), and of a linear probe trained along with the network (online). Effective "
    "rank (more is better), dead dimensions (a share) and uniformity (0: all features the same) "
    "tell of collapse; alignment is the distance of two views of an image. ESS is a bank's "
    "effective sample size, here as a share of the pool it is drawn from."
)


def build(
    tables: Sequence[Section], unfinished: Sequence[Run], left_out: Sequence[str]
) -> list[Part]:
    """All parts of it."""
    parts = list(_headline(tables, unfinished))
    if left_out:
        parts += [heading(2, "Left out"), bullets(left_out)]
    for name in _experiments(tables):
        parts += _experiment(name, tables)
    if unfinished:
        parts += _unfinished(unfinished)
    if tables:
        parts += _how_to_rerun(tables)
    return parts


def _headline(tables: Sequence[Section], unfinished: Sequence[Run]) -> Iterator[Part]:
    runs = _runs(tables)
    configurations = sum(len(section.rows) for section in tables)
    yield heading(1, f"Results: {', '.join(_experiments(tables)) or 'no finished run'}")
    told = f"{_count(len(runs), 'finished run')} of {_count(configurations, 'configuration')}"
    if unfinished:
        told += f", and {_count(len(unfinished), 'unfinished run')} outside all means"
    yield escape(
        f"{told}. A configuration is what differs in nothing but the seed; numbers are means ± "
        "sample standard deviations over its seeds. n is the number of seeds."
    )
    yield escape(_GLOSSARY)
    if runs:
        yield Table("What was run, where and when.", ["", ""], list(_facts(tables)), numeric=False)


def _facts(tables: Sequence[Section]) -> Iterator[list[str]]:
    runs = _runs(tables)
    results = [run.results or {} for run in runs]
    yield ["data", _counted(found["data"] for found in results)]
    yield ["seeds", ", ".join(map(str, sorted({int(found["seed"]) for found in results})))]
    commits = [found["commit"] or "not known" for found in results]
    yield ["commit", _counted(re.sub(r"\+$", " with changes", commit) for commit in commits)]
    hardware = [found["hardware"] for found in results]
    yield ["hardware", _counted(", ".join(_pairs(part)) for part in hardware)]
    yield ["versions", _counted(", ".join(_pairs(found["versions"])) for found in results)]
    hours = sum(float(found["wall_time_s"]) for found in results) / 3600.0
    resumed = sum(map(_resumed, runs))
    partly = f"; of {_count(resumed, 'resumed run')} only since then" if resumed else ""
    yield ["time", f"{hours:.1f} hours, all runs together{partly}"]
    times = [(run.folder / RESULTS).stat().st_mtime for run in runs]
    first, last = (
        datetime.fromtimestamp(time, tz=UTC).strftime("%Y-%m-%d %H:%M")
        for time in (min(times), max(times))
    )
    yield ["results written", f"{first} to {last} (UTC)"]


def _experiment(name: str, tables: Sequence[Section]) -> Iterator[Part]:
    found = [section for section in tables if section.experiment == name]
    printed = sources(name)
    yield heading(2, name)
    for number, section in enumerate(found, 1):
        which = f"[{number}] " if len(found) > 1 else ""
        yield heading(3, f"{which}{section.data.partition(':')[0]}, {_scale(section)}")
        yield from _results(section, [source for source in printed if source.beside])
        yield from _drawn(section, f"{_slug(name)}-{number}")
    yield from _differing(name, found)
    if printed:
        yield heading(3, f"Printed elsewhere: {name}")
        yield Table(
            "Numbers that others printed for these methods, each under a protocol of its own. "
            "None was measured here.",
            ["source", "metric", "protocol", "test accuracy in %"],
            [
                [source.source, metric(source.metric).label, source.protocol, _printed(source)]
                for source in printed
            ],
            numeric=False,
        )


def _results(section: Section, printed: Sequence[Source]) -> Iterator[Part]:
    """The table of an experiment, and in what it is not the paper's."""
    columns = [
        ["configuration", "untrained network", *(row.title for row in section.rows)],
        ["n", str(len(section.start)), *(str(len(row.runs)) for row in section.rows)],
    ]
    shown = []
    for measured in section.metrics:
        name, label = measured.name, measured.label
        cells = [section.untrained(name), *(row.values(name) for row in section.rows)]
        columns.append([label, *map(measured.mean_and_std, cells)])
        for source in printed:
            stand = source.stands_beside(section.rows)
            if stand and source.metric == name:
                shown.append(source)
                beside = [stand.get(row.title) for row in section.rows]
                told = ["" if there is None else _accuracy(there.accuracy) for there in beside]
                columns.append([f"paper, {label} *", "", *told])
    columns.append(["s a run", "", *(_seconds(row) for row in section.rows)])
    header, untrained, *rows = zip(*columns, strict=True)
    if section.start:
        rows.insert(0, untrained)
    yield Table(
        f"{section.data}. {_scale(section)}. Mean ± sample standard deviation over n seeds.",
        header,
        rows,
    )
    for source in shown:
        yield from _not_a_replay(section, source)


def _seconds(row: Row) -> str:
    """The mean duration of the runs that went through in one go; others tell of their end only."""
    whole = [run.results for run in row.runs if run.results and not _resumed(run)]
    return f"{np.mean([found['wall_time_s'] for found in whole]):.0f}" if whole else "—"


def _resumed(run: Run) -> bool:
    return bool((run.results or {}).get("resumed_at_step"))


def _not_a_replay(section: Section, source: Source) -> Iterator[Part]:
    yield escape(
        f"* Printed in {source.source}, not measured here: {source.protocol}. Our runs: "
        f"{section.data}; {_scale(section)}. Of the settings {', '.join(source.compared)} (others "
        "were not compared), these are not the paper's:"
    )
    shared = source.shared_deviations(section)
    lines = [f"all rows: {', '.join(shared)}"] if shared else []
    for title, stands in source.stands_beside(section.rows).items():
        if stands.deviations:
            lines.append(f"{title}: {', '.join(stands.deviations)}")
    yield bullets(lines or ["none"])


def _drawn(section: Section, slug: str) -> Iterator[Picture]:
    epochs = int(section.config["trainer.epochs"])
    about = f"{section.data}. {_scale(section)}."
    if section.experiment == "banks":
        yield from figure_8(section.rows, epochs=epochs, name=f"{slug}-figure-8", about=about)
    yield from every_run(section.rows, epochs=epochs, name=f"{slug}-runs", about=about)


def _differing(name: str, found: Sequence[Section]) -> Iterator[Part]:
    """The options that are not the same for all rows of an experiment, the long way down."""
    rows = [
        (row, f"{row.title} [{number}]" if len(found) > 1 else row.title)
        for number, section in enumerate(found, 1)
        for row in section.rows
    ]
    configs = [row.config for row, _ in rows]
    options = differences(configs)
    yield heading(3, f"Settings that differ: {name}")
    if not options:
        yield escape("None: there is one configuration.")
        return
    table = [["configuration", *options]]
    table += [[title, *(option(row.config, name) for name in options)] for row, title in rows]
    if len(options) > len(rows):
        table = [list(line) for line in zip(*table, strict=True)]
        table[0][0] = "option"
    which = " The number in brackets is that of its table above." if len(found) > 1 else ""
    yield Table(
        f"All other options are the same in all of them; a dash: there is no such option.{which}",
        table[0],
        table[1:],
        numeric=False,
    )


def _unfinished(runs: Sequence[Run]) -> Iterator[Part]:
    yield heading(2, "Unfinished runs")
    rows = []
    for run in runs:
        last = {name: curve[np.isfinite(curve)][-1] for name, curve in run.curves.items()}
        ends = (
            METRICS[name].mean_and_std([last[name]] if name in last else [])
            for name in ("train/loss", "eval/online_accuracy")
        )
        rows.append([str(run.folder), f"{_reached(run):.1f} of {run.epochs}", *ends])
    yield Table(
        "Runs without results.json: interrupted, or still going on. In no mean and no table above.",
        ["folder", "epochs", "last loss", "online probe, %"],
        rows,
    )
    for epochs in dict.fromkeys(run.epochs for run in runs):
        rows_drawn = [Row(str(run.folder), {}, [run]) for run in runs if run.epochs == epochs]
        about = f"Unfinished runs of {_count(epochs, 'epoch')}."
        yield from every_run(rows_drawn, epochs=epochs, name=f"unfinished-{epochs}", about=about)


def _reached(run: Run) -> float:
    """The epochs that a run has logged."""
    logged = [(np.isfinite(curve).nonzero()[0][-1] + 1, curve) for curve in run.curves.values()]
    shares = [last / len(curve) for last, curve in logged]
    return run.epochs * max(shares, default=0.0)


def _how_to_rerun(tables: Sequence[Section]) -> Iterator[Part]:
    results = [run.results or {} for run in _runs(tables)]
    yield heading(2, "How to rerun")
    yield escape(
        "In a checkout at the commit above, with the versions above. A command on a finished "
        "folder shows its results again; on an interrupted one it goes on."
    )
    lines = [f"python -m harness {shlex.join(map(str, found['command']))}" for found in results]
    yield commands([line.rstrip() for line in dict.fromkeys(lines)])


def _printed(source: Source) -> str:
    return ", ".join(f"{row['name']} {_accuracy(row['accuracy'])}" for row in source.rows)


def _accuracy(printed: float | None) -> str:
    return "not printed" if printed is None else f"{printed:.2f}"


def _scale(section: Section) -> str:
    epochs = _count(int(section.config["trainer.epochs"]), "epoch")
    batch = option(section.config, "trainer.batch_size")
    return f"{option(section.config, 'backbone.name')}, {epochs} of batch {batch}"


def _experiments(tables: Sequence[Section]) -> list[str]:
    return list(dict.fromkeys(section.experiment for section in tables))


def _runs(tables: Sequence[Section]) -> list[Run]:
    return [run for section in tables for row in section.rows for run in row.runs]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _counted(values: Iterator[str]) -> str:
    """The values, each with how many runs have it if not all have the same."""
    found = Counter(values)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({_count(number, 'run')})" for value, number in found.items())


def _pairs(found: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in found.items() if value is not None]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "experiment"
