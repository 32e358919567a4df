"""What a report says, in its order."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import numpy as np

from harness.metrics import METRICS, metric
from harness.report.markdown import Bold, Picture, Table, bullets, commands, escape, heading
from harness.report.pictures import every_run, figure_8
from harness.report.reading import Run
from harness.report.summary import Row, Section, Source, deviations, differences, option, sources
from harness.tracking import RESULTS

Part = str | Table | Picture

_GLOSSARY = (
    "Accuracies are in percent, of frozen features: of a linear probe, of weighted nearest "
    "neighbours (kNN), and of a linear probe trained along with the network (online). Effective "
    "rank (more is better), dead dimensions (a share) and uniformity (0: all features the same) "
    "tell of collapse; alignment is the distance of two views of an image. ESS is a bank's "
    "effective sample size, here as a share of the pool it is drawn from. In small charts a line "
    "is a run and a point the mean over an epoch, or over a part of it in a short training; "
    "metrics.csv of each run holds every step and further terms."
)


def results(
    tables: Sequence[Section], unfinished: Sequence[Run], left_out: Sequence[str]
) -> Iterator[Part]:
    """What was measured."""
    yield from _headline(tables, unfinished)
    for name in _experiments(tables):
        yield from _experiment(name, [table for table in tables if table.experiment == name])
    if unfinished:
        yield from _unfinished(unfinished)
    if left_out:
        yield from (heading(2, "Left out"), bullets(left_out))


def provenance(tables: Sequence[Section]) -> Iterator[Part]:
    """Where and when it was measured, and how to repeat it."""
    if tables:
        yield heading(2, "Provenance")
        yield bullets([f"{name}: {told}" for name, told in _facts(tables)])
        yield from _how_to_rerun(tables)


def _headline(tables: Sequence[Section], unfinished: Sequence[Run]) -> Iterator[Part]:
    configurations = sum(len(section.rows) for section in tables)
    yield heading(1, f"Results: {', '.join(_experiments(tables)) or 'no finished run'}")
    told = f"{_count(len(_runs(tables)), 'finished run')} of "
    told += _count(configurations, "configuration")
    if unfinished:
        told += f", and {_count(len(unfinished), 'unfinished run')} outside all means"
    yield escape(
        f"{told}. Runs are of one configuration if all options that can change a result are the "
        "same but the seed; machines, versions and commits may differ. Numbers are means ± sample "
        "standard deviations over n seeds. The best accuracy is first, and in bold in each column."
    )
    yield escape(_GLOSSARY)


def _facts(tables: Sequence[Section]) -> Iterator[tuple[str, str]]:
    runs = _runs(tables)
    found = [run.results for run in runs]
    yield "data", _counted(one["data"] for one in found)
    yield "seeds", ", ".join(map(str, sorted({int(one["seed"]) for one in found})))
    commits = [one["commit"] or "not known" for one in found]
    yield "commit", _counted(re.sub(r"\+$", " with changes", commit) for commit in commits)
    yield "hardware", _counted(_pairs(one["hardware"]) for one in found)
    yield "versions", _counted(_pairs(one["versions"]) for one in found)
    hours = sum(float(one["wall_time_s"]) for one in found) / 3600.0
    resumed = sum(map(_resumed, runs))
    partly = f"; of {_count(resumed, 'resumed run')} only since then" if resumed else ""
    yield "time", f"{hours:.1f} hours, all runs together{partly}"
    times = [(run.folder / RESULTS).stat().st_mtime for run in runs]
    first, last = (
        datetime.fromtimestamp(time, tz=UTC).strftime("%Y-%m-%d %H:%M")
        for time in (min(times), max(times))
    )
    yield "results written", f"{first} to {last} (UTC)"


def _experiment(name: str, tables: Sequence[Section]) -> Iterator[Part]:
    printed = sources(name)
    yield heading(2, name)
    for number, section in enumerate(tables, 1):
        which = f"[{number}] " if len(tables) > 1 else ""
        yield heading(3, f"{which}{section.data.partition(':')[0]}, {_scale(section)}")
        yield from _section(section, [source for source in printed if source.beside])
        slug, epochs = f"{_slug(name)}-{number}", int(section.config["trainer.epochs"])
        if name == "banks":
            yield from figure_8(section.rows, epochs=epochs, name=f"{slug}-figure-8")
        yield from every_run(section.rows, epochs=epochs, name=f"{slug}-runs")
    yield from _differing(name, tables)
    if printed:
        yield heading(3, f"Printed elsewhere: {name}")
        yield Table(
            "Numbers that others printed for these methods, each under a protocol of its own. "
            "None was measured here.",
            ["source", "metric", "protocol", "test accuracy in %"],
            [
                [
                    source.source,
                    metric(source.metric).label,
                    source.protocol,
                    ", ".join(f"{row['name']} {_accuracy(row['accuracy'])}" for row in source.rows),
                ]
                for source in printed
            ],
            numeric=False,
        )


def _section(section: Section, printed: Sequence[Source]) -> Iterator[Part]:
    """The table of an experiment, and in what it is not the paper's."""
    rows = section.ranked
    columns = [
        ["configuration", *(row.title for row in rows)],
        ["n", *(str(len(row.runs)) for row in rows)],
    ]
    shown = []
    for measured in section.metrics:
        values = [row.values(measured.name) for row in rows]
        cells = [measured.mean_and_std(found) for found in values]
        if measured.is_accuracy and len(rows) > 1:
            best = max(fmean(found) for found in values if found)
            cells = [
                Bold(cell) if found and fmean(found) == best else cell
                for cell, found in zip(cells, values, strict=True)
            ]
        columns.append([measured.label, *cells])
        for source in printed:
            stand = source.stands_beside(section.rows)
            if stand and source.metric == measured.name:
                shown.append(source)
                beside = [stand.get(row.title) for row in rows]
                told = ["" if there is None else _accuracy(there[0]) for there in beside]
                columns.append([f"paper, {measured.label} *", *told])
    columns.append(["s a run", *map(_seconds, rows)])
    header, *lines = zip(*columns, strict=True)
    yield Table(f"{section.data}.", header, lines)
    for source in shown:
        yield from _not_the_papers(section, source)


def _seconds(row: Row) -> str:
    """The mean duration of the runs that went through in one go; others tell of their end only."""
    through = [run for run in row.runs if run.epochs and not _resumed(run)]
    times = [run.results["wall_time_s"] for run in through]
    return f"{fmean(times):.0f}" if times else "—"


def _resumed(run: Run) -> bool:
    return bool(run.results.get("resumed_at_step"))


def _not_the_papers(section: Section, source: Source) -> Iterator[Part]:
    yield escape(
        f"* Printed in {source.source}, not measured here: {source.protocol}. Of the settings "
        f"{', '.join(source.compared)} (others were not compared), these of our runs are not the "
        "paper's:"
    )
    found = {"all rows": deviations(section.config, source.settings)}
    found |= {title: of_row for title, (_, of_row) in source.stands_beside(section.rows).items()}
    lines = [f"{of}: {', '.join(differing)}" for of, differing in found.items() if differing]
    yield bullets(lines or ["none"])


def _differing(name: str, tables: Sequence[Section]) -> Iterator[Part]:
    """The options that are not the same for all rows of an experiment, the long way down."""
    rows = [
        (row, f"{row.title} [{number}]" if len(tables) > 1 else row.title)
        for number, section in enumerate(tables, 1)
        for row in section.rows
    ]
    options = differences([row.config for row, _ in rows])
    yield heading(3, f"Settings that differ: {name}")
    if not options:
        yield escape("None: there is one configuration.")
        return
    table = [["configuration", *options]]
    table += [[title, *(option(row.config, name) for name in options)] for row, title in rows]
    if len(options) > len(rows):
        table = [list(line) for line in zip(*table, strict=True)]
        table[0][0] = "option"
    which = " The number in brackets is that of its table above." if len(tables) > 1 else ""
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
        last = {name: curve[np.isfinite(curve)][-1:] for name, curve in run.curves.items()}
        ends = (
            METRICS[name].mean_and_std(list(last.get(name, ())))
            for name in ("train/loss", "eval/online_accuracy")
        )
        rows.append([str(run.folder), f"{_reached(run):.1f} of {run.epochs}", *ends])
    yield Table(
        "Runs without results.json: interrupted, or still going on. In no mean and no table above.",
        ["folder", "epochs", "last loss", "online probe, %"],
        rows,
    )
    for epochs in dict.fromkeys(run.epochs for run in runs):
        drawn = [Row(str(run.folder), {}, [run]) for run in runs if run.epochs == epochs]
        yield from every_run(drawn, epochs=epochs, name=f"unfinished-{epochs}")


def _reached(run: Run) -> float:
    """The epochs that a run has logged."""
    shares = ((np.isfinite(z).nonzero()[0][-1] + 1) / len(z) for z in run.curves.values())
    return run.epochs * max(shares, default=0.0)


def _how_to_rerun(tables: Sequence[Section]) -> Iterator[Part]:
    found = [run.results for run in _runs(tables)]
    yield heading(2, "How to rerun")
    yield escape(
        "In a checkout at the commit above, with the versions above. A command on a finished "
        "folder shows its results again; on an interrupted one it goes on."
    )
    lines = [f"python -m harness {shlex.join(map(str, one['command']))}" for one in found]
    yield commands([line.rstrip() for line in dict.fromkeys(lines)])


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


def _pairs(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "experiment"
