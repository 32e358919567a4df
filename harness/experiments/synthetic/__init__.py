"""The paper's Experiment 1: conditional densities of ambiguous targets, against the truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from rich.console import Console

from harness import workers
from harness.experiments.synthetic.datasets import DATASETS
from harness.experiments.synthetic.models import MODELS
from harness.experiments.synthetic.study import Study, run
from harness.figures.synthetic import gaps
from harness.files import write_figures
from harness.metrics import METRICS, terminal_table
from harness.settings import SyntheticSettings
from harness.tracking import RunFolder
from harness.workers import Job

_LEGEND = (
    "gap: conditional NLL above the truth's, nats; W1: Wasserstein distance to the truth; near:\n"
    "% of the mass within 3 noise deviations of a branch; 50, 90: % of the targets in regions\n"
    "said to hold 50, 90 %; RMSE: of the branches; noise: deviation of components; weights:\n"
    "error of the branches' weights; s: CPU seconds a fit"
)


def make(
    folder: RunFolder,
    experiment: SyntheticSettings,
    images: None,  # noqa: ARG001
    console: Console,
) -> dict[str, Any]:
    """Fits and scores every model on every dataset; every seed's scores."""
    (folder.path / "studies").mkdir(exist_ok=True)
    first = folder.settings.seed
    seeds = list(range(first, first + experiment.num_seeds))
    studies = [
        Study(dataset, seed, experiment, folder.path, draws=seed == first)
        for seed in seeds
        for dataset in DATASETS
    ]
    jobs = [Job(study.path.stem, partial(run, study), study.path) for study in studies]
    workers.run_jobs(jobs, workers=experiment.workers, threads=1, console=console)
    datasets = {
        name: {"title": dataset.title, "rows": _rows(studies, name)}
        for name, dataset in DATASETS.items()
    }
    _draw(datasets.values(), folder)
    return {
        "data": f"{experiment.num_pairs} pairs of known truth, noise {experiment.noise:g}",
        "seeds": seeds,
        "datasets": datasets,
    }


def _rows(studies: Iterable[Study], dataset: str) -> dict[str, Any]:
    """Every seed's scores of every model on a dataset."""
    found = [json.loads(study.path.read_text()) for study in studies if study.dataset == dataset]
    titles = {"truth": "truth", **{name: model.title for name, model in MODELS.items()}}
    return {
        model: {"title": titles[model]}
        | {measure: [scores[model][measure] for scores in found] for measure in found[0][model]}
        for model in titles
    }


def _draw(datasets: Iterable[Mapping[str, Any]], folder: RunFolder) -> None:
    """Draws what takes all seeds."""
    facets = {
        dataset["title"]: {
            row["title"]: row["excess_nll"]
            for name, row in dataset["rows"].items()
            if name in MODELS
        }
        for dataset in datasets
    }
    label = "conditional negative log-likelihood above the truth's, in nats"
    write_figures(folder.path / "figures", {"gaps": gaps(facets, label=label)}, dpi=110)


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    measures = list(results["datasets"]["arm"]["rows"]["truth"])[1:]
    cells = [
        [dataset["title"], row["title"], *(fmean(row[measure]) for measure in measures)]
        for dataset in results["datasets"].values()
        for row in dataset["rows"].values()
    ]
    return ["data", "model", *measures], cells


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints a table a dataset, of means over the seeds."""
    console.print(results["data"], soft_wrap=True)
    for dataset in results["datasets"].values():
        title = f"{dataset['title']}; mean over {len(results['seeds'])} seeds (± deviation)"
        table = terminal_table(title, padding=0)  # all columns in 80
        table.add_column("model", no_wrap=True)
        measured = set().union(*dataset["rows"].values())
        columns = [name for name in METRICS if name in measured]
        for name in columns:
            table.add_column(METRICS[name].label, justify="right", no_wrap=True)
        for name, row in dataset["rows"].items():
            cells = [_cell(column, row[column]) if column in row else "" for column in columns]
            table.add_row(row["title"], *cells, end_section=name == "truth")
        console.print(table)
    console.print(_LEGEND, soft_wrap=True)


def _cell(column: str, values: Sequence[float]) -> str:
    shown = METRICS[column]
    return shown.mean_and_std(values if column == "excess_nll" else [fmean(values)])
