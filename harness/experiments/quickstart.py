"""The quickstart: stock lightly pipelines on scikit-learn's digits that differ by one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from torch.nn.functional import normalize

from harness import data, runs, tracking, training, workers
from harness.data import ImageData
from harness.evaluation import encode, evaluate
from harness.evaluation.density import principal_plane
from harness.figures.training import Curves, accuracy_dots, density, ess_curves, loss_curves
from harness.files import write_figures
from harness.methods.banks import SMCBankSettings
from harness.methods.gmje_mdn import GMJEMDNSettings
from harness.methods.parametric_gmje import ParametricGMJESettings
from harness.metrics import METRICS, terminal_table
from harness.progress import Report
from harness.settings import QuickstartSettings, Settings, SettingsError
from harness.tracking import MetricsRow, RunFolder, curve, read_metrics
from harness.workers import Job

_NOTE = (
    "nll rises where targets spread, as they follow the encoder by a moving average:\n"
    "the density of wider targets is lower"
)
_MEASURED = ("knn_accuracy", "linear_accuracy", "effective_rank")


def make(
    folder: RunFolder, experiment: QuickstartSettings, images: ImageData, console: Console
) -> dict[str, Any]:
    """Trains and evaluates every row over all seeds."""
    asked = _Quickstart(folder, experiment, images)
    jobs = [asked.job(name, seed) for name in experiment.rows for seed in asked.seeds]
    threads = folder.settings.trainer.threads
    workers.run_jobs(jobs, workers=experiment.workers, threads=threads, console=console)
    results = {
        "data": images.variant,
        "seeds": asked.seeds,
        "untrained": asked.untrained(),
        "rows": {name: asked.row(name) for name in experiment.rows},
    }
    write_figures(folder.path / "figures", asked.draw(results), dpi=150)
    return results


@dataclass(frozen=True)
class _Quickstart:
    """What the parts of a run share."""

    folder: RunFolder
    experiment: QuickstartSettings
    images: ImageData

    @property
    def settings(self) -> Settings:
        return self.folder.settings

    @property
    def seeds(self) -> list[int]:
        return list(range(self.settings.seed, self.settings.seed + self.experiment.num_seeds))

    def untrained(self) -> dict[str, list[float]]:
        """The metrics of the backbones that the trainings start from."""
        found = []
        for seed in self.seeds:
            settings = replace(self.settings, seed=seed)
            backbone = training.build_backbone(settings, self.images)
            folder = self.folder.part(f"untrained,seed={seed}", settings).path
            found.append(evaluate(backbone, self.images, settings, folder=folder))
        return {metric: [figure[metric] for figure in found] for metric in _measured(found[0])}

    def job(self, name: str, seed: int) -> Job:
        """Trains and evaluates a row from one seed, in any process."""
        folder = self._training(name, seed)
        return Job(
            f"{self.experiment.rows[name].title}, seed {seed}",
            partial(_train, name, folder, self.settings.seed),
            folder.path / tracking.RESULTS,
            self.settings.trainer.epochs,
        )

    def row(self, name: str) -> dict[str, Any]:
        """Every seed's metrics of a row that is trained."""
        files = [self._training(name, seed).path / tracking.RESULTS for seed in self.seeds]
        found = [json.loads(file.read_text()) for file in files]
        metrics = [result["metrics"] for result in found]
        return {
            "title": self.experiment.rows[name].title,
            "seconds": [result["wall_time_s"] for result in found],
            **{metric: [each[metric] for each in metrics] for metric in _measured(metrics[0])},
        }

    def _training(self, name: str, seed: int) -> RunFolder:
        """The folder of one training, with its settings."""
        row = self.experiment.rows[name]
        settings = replace(
            self.settings, method=row.method, bank=row.bank, seed=seed, overwrite=False
        )
        return self.folder.part(f"{name},seed={seed}", settings)

    def draw(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """The figures by name; those on banks and prototypes only where a row has them."""
        terms = self._mdn_terms()
        note = f"{', '.join(terms)}: {_NOTE}" if terms else ""
        drawn = {"loss": loss_curves(self._curves("train/loss"), terms, note=note)}
        if self.images.is_labelled:
            drawn["accuracy"] = accuracy_dots(
                {row["title"]: _accuracies(row) for row in results["rows"].values()},
                _accuracies(results["untrained"]),
            )
        sizes = self._curves("bank/ess_ratio")
        if sizes:
            epochs = self.settings.trainer.epochs
            drawn["ess"] = ess_curves(sizes, thresholds=self._thresholds(), epochs=epochs)
        for name, row in self.experiment.rows.items():
            if isinstance(row.method, ParametricGMJESettings):
                key = f"density_{name}" if "density" in drawn else "density"
                drawn[key] = self._density(name)
        return drawn

    def _density(self, name: str) -> Figure:
        """The mixture that the last seed of a row has learned, among its embeddings."""
        folder = self._training(name, self.seeds[-1])
        module = training.load(self.images, folder)
        embeddings, labels = encode(module, self.images.test, self.images)
        criterion: Any = module.criterion
        planar = principal_plane(criterion.mixture(), normalize(embeddings, dim=1))
        return density(planar, labels.tolist())

    @cached_property
    def _logged(self) -> dict[str, list[list[MetricsRow]]]:
        """The lines of every seed's metrics.csv, for the title of each row."""
        return {
            row.title: [
                read_metrics(self._training(name, seed).path / tracking.METRICS_FILE)
                for seed in self.seeds
            ]
            for name, row in self.experiment.rows.items()
        }

    def _curves(self, column: str) -> dict[str, Curves]:
        """A column of metrics.csv over the steps, for the title of each row that has it."""
        found = {
            title: [curve(lines, column) for lines in seeds]
            for title, seeds in self._logged.items()
        }
        return {
            title: (seeds[0][0], np.array([values for _, values in seeds]))
            for title, seeds in found.items()
            if seeds[0][0].size
        }

    def _mdn_terms(self) -> dict[str, dict[str, Any]]:  # shapes: (seeds, N)
        """Likelihood and entropy guard of GMJE-MDN, in nats per dimension as its loss."""
        nll, guard = self._curves("train/nll"), self._curves("train/guard")
        return {
            row.title: {
                "nll": nll[row.title][1] / row.method.output_dim,
                "guard": row.method.guard_weight * guard[row.title][1] / row.method.output_dim,
            }
            for row in self.experiment.rows.values()
            if isinstance(row.method, GMJEMDNSettings) and row.method.guard == "entropy"
        }

    def _thresholds(self) -> set[float]:
        """The effective sample sizes, as a share of the pool, below which banks resample."""
        banks = [row.bank for row in self.experiment.rows.values()]
        found = [bank.ess_threshold for bank in banks if isinstance(bank, SMCBankSettings)]
        return {threshold for threshold in found if threshold is not None}


def _train(name: str, folder: RunFolder, data_seed: int, report: Report) -> None:
    """Trains and evaluates a row from one seed, on the images that all seeds have."""
    images = data.load(folder.settings.data, seed=data_seed)
    experiment: Any = folder.settings.experiment
    title, told = experiment.rows[name].title, f"{name}, seed {folder.settings.seed}"
    try:
        runs.run_training(images, folder, title=title, name=told, report=report)
    except SettingsError as error:
        raise SettingsError(f"experiment.rows.{told}: {error}") from error


def _measured(found: Mapping[str, Any]) -> list[str]:
    """The metrics of the table that there are: images of one class have no accuracies."""
    return [metric for metric in _MEASURED if metric in found]


def _accuracies(found: Mapping[str, Any]) -> dict[str, list[float]]:
    return {"kNN": found["knn_accuracy"], "linear": found["linear_accuracy"]}


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    rows = results["rows"].values()
    cells = [[row["title"], *(fmean(row[metric]) for metric in _measured(row))] for row in rows]
    return ["pipeline", *_measured(results["untrained"])], cells


def show(results: Mapping[str, Any], console: Console) -> None:
    """Mean and standard deviation over the seeds, in the terminal."""
    console.print(results["data"], soft_wrap=True)
    count = len(results["seeds"])
    table = terminal_table(f"mean ± standard deviation over {count} seeds; s: seconds a run")
    table.add_column("pipeline", no_wrap=True)
    for metric in _measured(results["untrained"]):
        table.add_column(METRICS[metric].label, justify="right", min_width=10)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_row("untrained network", *_cells(results["untrained"]), "", end_section=True)
    for row in results["rows"].values():
        table.add_row(row["title"], *_cells(row), f"{fmean(row['seconds']):.1f}")
    console.print(table)


def _cells(found: Mapping[str, Sequence[float]]) -> list[str]:
    return [METRICS[name].mean_and_std(found[name], decimals=1) for name in _measured(found)]
