"""The quickstart: stock lightly pipelines on scikit-learn's digits that differ by one line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytorch_lightning as pl
import torch
from gmje_plugin import GMJEPrototypeLoss
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

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
    SMCBankSettings,
)
from harness.tracking import MetricsFile, RunFolder

_HEADINGS = {"knn_accuracy": "kNN %", "linear_accuracy": "linear %", "effective_rank": "eff. rank"}


def run(settings: Settings, experiment: QuickstartSettings, folder: RunFolder) -> None:
    """Trains and evaluates every row over all seeds; prints a table, leaves all in the folder."""
    console = Console()
    results = folder.finished_results()
    if results is not None:
        console.print(_table(results))
        console.print(f"Finished before: {folder.path} (overwrite=true runs it again)", soft_wrap=True)
        return
    started = time.perf_counter()
    folder.start()
    torch.set_num_threads(settings.trainer.threads)
    images = data.load(settings.data, seed=settings.seed)
    lines = MetricsFile(folder.path / tracking.METRICS)
    seeds = list(range(settings.seed, settings.seed + experiment.num_seeds))
    results = {
        "experiment": experiment.name,
        "data": images.variant,
        "seeds": seeds,
        "untrained": _untrained(settings, images, seeds),
        "rows": {},
        **tracking.provenance(),
    }
    trained = {}
    with _progress(console, len(experiment.rows) * len(seeds) * settings.trainer.epochs) as bar:
        for name, row in experiment.rows.items():
            trained[name], results["rows"][name] = _train_row(
                name, row, settings, images, seeds, lines=lines, folder=folder.path, bar=bar
            )
    drawn = _draw(results, lines, images, trained, settings, experiment)
    _save(drawn, results, settings, folder.path)
    results["wall_time_s"] = round(time.perf_counter() - started, 1)
    folder.write_results(results)
    console.print(_table(results))
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)


def _untrained(
    settings: Settings, images: ImageData, seeds: Sequence[int]
) -> dict[str, list[float]]:
    """The figures of the backbones that the trainings start from."""
    found = [
        evaluate(
            training.build_backbone(settings, images, seed=seed), images, settings.evaluation
        )
        for seed in seeds
    ]
    return {metric: [figure[metric] for figure in found] for metric in METRICS}


def _train_row(
    name: str,
    row: RowSettings,
    settings: Settings,
    images: ImageData,
    seeds: Sequence[int],
    *,
    lines: MetricsFile,
    folder: Path,
    bar: _EpochBar,
) -> tuple[Method, dict[str, Any]]:
    """Trains a row over all seeds: the last seed's model, and every seed's figures."""
    result: dict[str, Any] = {"title": row.title, "seconds": [], **{m: [] for m in METRICS}}
    for seed in seeds:
        bar.describe(f"{row.title}, seed {seed}")
        started = time.perf_counter()
        with tracking.wandb_run(
            settings.logger,
            folder,
            name=f"{name}, seed {seed}",
            group=settings.experiment.name,
            job_type=name,
            config={"row": asdict(row), "seed": seed, "trainer": asdict(settings.trainer)},
        ) as wandb_logger:
            loggers = [lines.labelled(row=name, seed=seed), *wandb_logger]
            module = training.train(
                row.method, settings, images, seed=seed, loggers=loggers, callbacks=[bar]
            )
            found = evaluate(module.backbone, images, settings.evaluation)
            for logger in wandb_logger:
                logger.log_metrics(found)
        for metric in METRICS:
            result[metric].append(found[metric])
        result["seconds"].append(round(time.perf_counter() - started, 2))
    return module, result


class _EpochBar(Callback):
    """A progress bar over the epochs of all trainings."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=epochs)

    def describe(self, text: str) -> None:
        """Says what is being trained."""
        self.progress.update(self.task, description=text)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Moves on by an epoch."""
        self.progress.advance(self.task)


@contextmanager
def _progress(console: Console, epochs: int) -> Iterator[_EpochBar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _EpochBar(progress, epochs)


def _draw(
    results: Mapping[str, Any],
    lines: MetricsFile,
    images: ImageData,
    trained: Mapping[str, Method],
    settings: Settings,
    experiment: QuickstartSettings,
) -> dict[str, Figure]:
    """The figures by name; those on banks and prototypes only where a row has them."""
    rows = results["rows"]
    titles = {name: row["title"] for name, row in rows.items()}
    drawn = {
        "loss": figures.loss_curves(_titled(lines.curves("loss"), titles)),
        "accuracy": figures.accuracy_bars(
            {
                row["title"]: {"kNN": row["knn_accuracy"], "linear": row["linear_accuracy"]}
                for row in rows.values()
            },
            {
                "kNN": results["untrained"]["knn_accuracy"],
                "linear": results["untrained"]["linear_accuracy"],
            },
        ),
    }
    sizes = _titled(lines.curves("ess_ratio"), titles)
    if sizes:
        logged = next(iter(sizes.values())).shape[1]
        drawn["ess"] = figures.ess_curves(
            sizes,
            thresholds=_thresholds(experiment),
            window=max(1, logged // settings.trainer.epochs),
        )
    for module in trained.values():
        if isinstance(module.criterion, GMJEPrototypeLoss):
            embeddings, labels = encode(module, images.test, images)
            mixture = module.criterion.mixture()
            unit = torch.nn.functional.normalize(embeddings, dim=1)
            drawn["density"] = figures.density(principal_plane(mixture, unit), labels.tolist())
    return drawn


def _thresholds(experiment: QuickstartSettings) -> set[float]:
    """The effective sample sizes, as a share of the pool, below which banks resample."""
    methods = [row.method for row in experiment.rows.values()]
    banks = [method.bank for method in methods if isinstance(method, MoCoSettings)]
    found = [bank.ess_threshold for bank in banks if isinstance(bank, SMCBankSettings)]
    return {threshold for threshold in found if threshold is not None}


def _titled(curves: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    return {titles[name]: values for name, values in curves.items()}


def _save(
    drawn: Mapping[str, Figure], results: Mapping[str, Any], settings: Settings, folder: Path
) -> None:
    """Writes the figures, and logs them with the table as a W&B run of their own."""
    (folder / "figures").mkdir()
    for name, figure in drawn.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=150)
    with tracking.wandb_run(
        settings.logger,
        folder,
        name="summary",
        group=settings.experiment.name,
        job_type="summary",
        config=results,
    ) as loggers:
        for logger in loggers:
            for name in drawn:
                logger.log_image(name, [str(folder / "figures" / f"{name}.png")])
            cells = [
                [row["title"], *(fmean(row[metric]) for metric in METRICS)]
                for row in results["rows"].values()
            ]
            logger.log_table("results", columns=["pipeline", *METRICS], data=cells)


def _table(results: Mapping[str, Any]) -> Table:
    """Mean and standard deviation over the seeds, in the terminal."""
    count = len(results["seeds"])
    table = Table(
        title=f"{results['data']}; mean ± standard deviation over {count} seeds",
        title_justify="left",
    )
    table.add_column("pipeline", no_wrap=True)
    for metric in METRICS:
        table.add_column(_HEADINGS[metric], justify="right", no_wrap=True)
    table.add_column("s a run", justify="right")
    table.add_row("untrained network", *_cells(results["untrained"]), "", end_section=True)
    for row in results["rows"].values():
        table.add_row(row["title"], *_cells(row), f"{fmean(row['seconds']):.1f}")
    return table


def _cells(found: Mapping[str, Sequence[float]]) -> list[str]:
    cells = []
    for metric in METRICS:
        scale = 1.0 if metric == "effective_rank" else 100.0
        values = [scale * value for value in found[metric]]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{fmean(values):.1f}{spread}")
    return cells
