"""The paper's Experiment 1: conditional densities of ambiguous targets, against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from rich.console import Console

from harness import tracking, workers
from harness.experiments.synthetic.datasets import DATASETS
from harness.experiments.synthetic.models import MODELS
from harness.experiments.synthetic.study import Study, carry_out
from harness.experiments.synthetic.table import show
from harness.figures.synthetic import gaps
from harness.files import write_png
from harness.settings import Settings, SyntheticSettings
from harness.tracking import RunFolder
from harness.workers import Job

__all__ = ["prepare", "show", "summary"]


def prepare(
    settings: Settings, experiment: SyntheticSettings
) -> Callable[[RunFolder, Console], dict[str, Any]]:
    """What it returns fits and scores every model on every dataset."""

    def make(folder: RunFolder, console: Console) -> dict[str, Any]:
        for name in ("studies", "figures"):
            (folder.path / name).mkdir(exist_ok=True)
        studies = [
            Study(dataset, seed, experiment, folder.path, draws=seed == settings.seed)
            for seed in range(settings.seed, settings.seed + experiment.num_seeds)
            for dataset in DATASETS
        ]
        jobs = [Job(study.path.stem, partial(carry_out, study), study.path) for study in studies]
        workers.carry_out(jobs, workers=experiment.workers, threads=1, console=console)
        results = _results(studies, experiment)
        _draw(results, folder)
        return results

    return make


def _results(studies: Sequence[Study], experiment: SyntheticSettings) -> dict[str, Any]:
    """What ``results.json`` is to hold, but for the time: every seed's scores."""
    titles = {"truth": "truth", **{name: model.title for name, model in MODELS.items()}}
    results: dict[str, Any] = {
        "experiment": experiment.name,
        "data": f"{experiment.num_pairs} pairs of known truth, noise {experiment.noise:g}",
        "seeds": list(dict.fromkeys(study.seed for study in studies)),
        "datasets": {},
        **tracking.provenance(),
    }
    for name, dataset in DATASETS.items():
        found = [study.found() for study in studies if study.dataset == name]
        rows = {
            model: {"title": titles[model]}
            | {measure: [scores[model][measure] for scores in found] for measure in found[0][model]}
            for model in titles
        }
        results["datasets"][name] = {"title": dataset.title, "rows": rows}
    return results


def _draw(results: dict[str, Any], folder: RunFolder) -> None:
    """Draws what takes all seeds."""
    pictures = folder.path / "figures"
    facets = {
        dataset["title"]: {
            row["title"]: row["excess_nll"]
            for name, row in dataset["rows"].items()
            if name in MODELS
        }
        for dataset in results["datasets"].values()
    }
    label = "conditional negative log-likelihood above the truth's, in nats"
    write_png(pictures / "gaps.png", gaps(facets, label=label), dpi=110)


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    measures = list(results["datasets"]["arm"]["rows"]["truth"])[1:]
    cells = [
        [dataset["title"], row["title"], *(fmean(row[measure]) for measure in measures)]
        for dataset in results["datasets"].values()
        for row in dataset["rows"].values()
    ]
    return ["data", "model", *measures], cells
