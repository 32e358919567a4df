"""The quickstart: stock lightly pipelines on scikit-learn's digits that differ by one line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch.nn.functional import normalize

from gmje_plugin import GMJEPrototypeLoss
from harness import data, figures, tracking, training
from harness.data import ImageData
from harness.evaluation import METRICS, encode, evaluate
from harness.evaluation.density import principal_plane
from harness.methods import Method
from harness.settings import (
    MoCoSettings,
    QuickstartSettings,
    RowSettings,
    Settings,
    SettingsError,
    SMCBankSettings,
)
from harness.tracking import MetricsFile, RunFolder

_HEADINGS = {"knn_accuracy": "kNN %", "linear_accuracy": "linear %", "effective_rank": "rank"}


def run(settings: Settings, experiment: QuickstartSettings, folder: RunFolder) -> None:
    """Trains and evaluates every row over all seeds; prints a table, leaves all in the folder."""
    console = Console()
    results = folder.finished_results()
    if results is not None:
        _print(results, console)
        console.print(f"Finished before: {folder.path} (overwrite=true repeats it)", soft_wrap=True)
        return
    if not experiment.rows:
        raise SettingsError("experiment.rows must hold at least one row")
    started = time.perf_counter()
    torch.set_num_threads(settings.trainer.threads)
    images = data.load(settings.data, seed=settings.seed)
    training.check(settings, images)
    folder.start()
    lines = MetricsFile(folder.path / tracking.METRICS)
    results = _Quickstart(settings, experiment, images, folder.path, lines).results(console)
    results["wall_time_s"] = round(time.perf_counter() - started, 1)
    folder.write_results(results)
    _print(results, console)
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)


class _EpochBar(Callback):
    """A progress bar over the epochs of all trainings."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=epochs)

    def describe(self, text: str) -> None:
        """Says what is being trained."""
        self.progress.update(self.task, description=text)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Moves on by an epoch."""
        self.progress.advance(self.task)


@dataclass(frozen=True)
class _Quickstart:
    """What the parts of a run share."""

    settings: Settings
    experiment: QuickstartSettings
    images: ImageData
    folder: Path
    lines: MetricsFile

    @property
    def seeds(self) -> list[int]:
        return list(range(self.settings.seed, self.settings.seed + self.experiment.num_seeds))

    def results(self, console: Console) -> dict[str, Any]:
        """Trains everything and returns what ``results.json`` is to hold, but for the time."""
        results: dict[str, Any] = {
            "experiment": self.experiment.name,
            "data": self.images.variant,
            "seeds": self.seeds,
            "untrained": self._untrained(),
            "rows": {},
            **tracking.provenance(),
        }
        trained = {}
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            trainings = len(self.experiment.rows) * len(self.seeds)
            bar = _EpochBar(progress, epochs=trainings * self.settings.trainer.epochs)
            for name, row in self.experiment.rows.items():
                trained[name], results["rows"][name] = self._train_row(name, row, bar)
        self._save(self._draw(results, trained), results)
        return results

    def _untrained(self) -> dict[str, list[float]]:
        """The figures of the backbones that the trainings start from."""
        found = []
        for seed in self.seeds:
            backbone = training.build_backbone(self.settings, self.images, seed=seed)
            found.append(evaluate(backbone, self.images, self.settings.evaluation))
        return {metric: [figure[metric] for figure in found] for metric in METRICS}

    def _train_row(
        self, name: str, row: RowSettings, bar: _EpochBar
    ) -> tuple[Method, dict[str, Any]]:
        """Trains a row over all seeds: the last seed's model, and every seed's figures."""
        result: dict[str, Any] = {"title": row.title, "seconds": [], **{m: [] for m in METRICS}}
        for seed in self.seeds:
            bar.describe(f"{row.title}, seed {seed}")
            started = time.perf_counter()
            try:
                module, found = self._train(name, row, seed, bar)
            except SettingsError as error:
                raise SettingsError(f"experiment.rows.{name}, seed {seed}: {error}") from error
            for metric in METRICS:
                result[metric].append(found[metric])
            result["seconds"].append(round(time.perf_counter() - started, 2))
        return module, result

    def _train(
        self, name: str, row: RowSettings, seed: int, bar: _EpochBar
    ) -> tuple[Method, dict[str, float]]:
        with tracking.wandb_run(
            self.settings.logger,
            self.folder,
            name=f"{name}, seed {seed}",
            group=self.experiment.name,
            job_type=name,
            config={**asdict(row), "seed": seed, "trainer": asdict(self.settings.trainer)},
        ) as wandb_loggers:
            module = training.train(
                row.method,
                self.settings,
                self.images,
                seed=seed,
                loggers=[self.lines.labelled(row=name, seed=seed), *wandb_loggers],
                callbacks=[bar],
            )
            found = evaluate(module.backbone, self.images, self.settings.evaluation)
            for logger in wandb_loggers:
                logger.log_metrics(found)
        return module, found

    def _draw(self, results: Mapping[str, Any], trained: Mapping[str, Method]) -> dict[str, Figure]:
        """The figures by name; those on banks and prototypes only where a row has them."""
        drawn = {
            "loss": figures.loss_curves(self._curves("loss")),
            "accuracy": figures.accuracy_bars(
                {row["title"]: _accuracies(row) for row in results["rows"].values()},
                _accuracies(results["untrained"]),
            ),
        }
        sizes = self._curves("ess_ratio")
        if sizes:
            logged = next(iter(sizes.values())).shape[1]
            drawn["ess"] = figures.ess_curves(
                sizes,
                thresholds=self._thresholds(),
                window=max(1, logged // self.settings.trainer.epochs),
            )
        for module in trained.values():
            if isinstance(module.criterion, GMJEPrototypeLoss):
                embeddings, labels = encode(module, self.images.test, self.images)
                planar = principal_plane(module.criterion.mixture(), normalize(embeddings, dim=1))
                drawn["density"] = figures.density(planar, labels.tolist())
        return drawn

    def _curves(self, column: str) -> dict[str, Any]:
        curves = self.lines.curves(column)
        return {self.experiment.rows[name].title: values for name, values in curves.items()}

    def _thresholds(self) -> set[float]:
        """The effective sample sizes, as a share of the pool, below which banks resample."""
        methods = [row.method for row in self.experiment.rows.values()]
        banks = [method.bank for method in methods if isinstance(method, MoCoSettings)]
        found = [bank.ess_threshold for bank in banks if isinstance(bank, SMCBankSettings)]
        return {threshold for threshold in found if threshold is not None}

    def _save(self, drawn: Mapping[str, Figure], results: Mapping[str, Any]) -> None:
        """Writes the figures, and logs them with the table as a W&B run of their own."""
        paths = {name: self.folder / "figures" / f"{name}.png" for name in drawn}
        (self.folder / "figures").mkdir()
        for name, figure in drawn.items():
            figure.savefig(paths[name], dpi=150)
        with tracking.wandb_run(
            self.settings.logger,
            self.folder,
            name="summary",
            group=self.experiment.name,
            job_type="summary",
            config={**asdict(self.settings), **tracking.provenance()},
        ) as loggers:
            for logger in loggers:
                for name, path in paths.items():
                    logger.log_image(name, [str(path)])
                cells = [
                    [row["title"], *(fmean(row[metric]) for metric in METRICS)]
                    for row in results["rows"].values()
                ]
                logger.log_table("results", columns=["pipeline", *METRICS], data=cells)


def _accuracies(found: Mapping[str, Any]) -> dict[str, list[float]]:
    return {"kNN": found["knn_accuracy"], "linear": found["linear_accuracy"]}


def _print(results: Mapping[str, Any], console: Console) -> None:
    """Mean and standard deviation over the seeds, in the terminal."""
    console.print(results["data"], soft_wrap=True)
    table = Table(
        title=f"mean ± standard deviation over {len(results['seeds'])} seeds; s: seconds a run",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("pipeline", no_wrap=True)
    for metric in METRICS:
        table.add_column(_HEADINGS[metric], justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_row("untrained network", *_cells(results["untrained"]), "", end_section=True)
    for row in results["rows"].values():
        table.add_row(row["title"], *_cells(row), f"{fmean(row['seconds']):.1f}")
    console.print(table)


def _cells(found: Mapping[str, Sequence[float]]) -> list[str]:
    cells = []
    for metric in METRICS:
        scale = 1.0 if metric == "effective_rank" else 100.0
        values = [scale * value for value in found[metric]]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{fmean(values):.1f}{spread}")
    return cells
