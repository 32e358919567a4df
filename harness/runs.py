"""From settings to results.json: trains one method from one seed, or goes on, and evaluates it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from harness import training
from harness.checkpoints import read_checkpoint
from harness.data import ImageData
from harness.evaluation import evaluate
from harness.evaluation.online_probe import ONLINE_ACCURACY
from harness.figures.training import run_curves
from harness.methods.modules.base import Method
from harness.processes import is_first_process
from harness.settings import Settings, registry
from harness.tracking import (
    METRICS,
    MetricsFile,
    Row,
    RunFolder,
    curve,
    curve_loggers,
    leaves,
    provenance,
)

_CURVES = ("train/loss", ONLINE_ACCURACY, "bank/ess_ratio")


def title(settings: Settings) -> str:
    """What tables call a run: "MoCo v2, FIFO, M = 4096, in-batch negatives"."""
    method, bank = settings.method, settings.bank
    if settings.trainer.epochs == 0 or method is None:
        return "untrained network"
    words = [registry.title("method", method.name)]
    if bank is not None:
        words += [registry.title("bank", bank.name), f"M = {bank.size}"]
    words.append(method.suffix())
    return ", ".join(filter(None, words))


def run_training(
    settings: Settings,
    data: ImageData,
    folder: RunFolder,
    *,
    title: str,
    name: str,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains, evaluates and fills the folder, from wherever an earlier process left it.

    Args:
        settings: What to train; the experiment's name groups W&B runs.
        data: The images.
        folder: The training's own folder.
        title: What tables call it.
        name: What W&B calls it.
        callbacks: As Lightning's.

    Returns:
        What ``results.json`` holds; nothing in all processes but the first of a distributed run.

    Raises:
        SettingsError: If the folder is not one of this run, or what was asked cannot be run.
    """
    found = folder.finished_results()
    if found is not None:
        return found
    started = time.perf_counter()
    if not is_first_process(settings.trainer):
        training.train(settings, data, folder, loggers=[])
        return {}
    with folder.started():
        step = _steps_done(folder)
        rows = MetricsFile(folder.path / METRICS, first_step=step)
        with curve_loggers(
            settings.logger,
            folder.path,
            name=name,
            group=settings.experiment.name,
            job_type=settings.method.name if settings.method else "",
            # Flat, as a W&B sweep puts its words for method and bank in place of nested settings.
            config={
                **dict(leaves(asdict(settings))),
                **provenance(),
                "data_variant": data.variant,
            },
            rows=rows.rows,
        ) as others:
            module = training.train(
                settings, data, folder, loggers=[rows, *others], callbacks=[Speed(), *callbacks]
            )
            metrics = evaluate(module.backbone, data, settings, folder=folder.path)
            results = {
                "experiment": settings.experiment.name,
                "title": title,
                "seed": settings.seed,
                "data": data.variant,
                "metrics": {**metrics, **_online(rows.rows)},
                "wall_time_s": round(time.perf_counter() - started, 1),
                "resumed_at_step": step,
                **provenance(),
            }
            folder.write_results(results)  # whatever then becomes of a logger
            _log_outcome(others, title, metrics, rows.rows)
    return results


def _steps_done(folder: RunFolder) -> int:
    return int(read_checkpoint(folder.checkpoint)["global_step"]) if folder.checkpoint else 0


def _online(rows: Sequence[Row]) -> dict[str, float]:
    """The last accuracy of the online probe."""
    measured = [row[ONLINE_ACCURACY] for row in rows if ONLINE_ACCURACY in row]
    return {"online_accuracy": measured[-1]} if measured else {}


def _log_outcome(
    loggers: Sequence[Logger], title: str, metrics: dict[str, float], rows: Sequence[Row]
) -> None:
    """The final figures, a table of them and the curves as a picture, where a logger takes it."""
    for logger in loggers:
        logger.log_metrics({f"eval/{name}": value for name, value in metrics.items()})
        match logger:
            case WandbLogger():
                columns, cells = ["title", *metrics], [[title, *metrics.values()]]
                logger.log_table("results", columns=columns, data=cells)
                if rows:
                    logger.log_image("curves", [_picture(title, rows)])
            case TensorBoardLogger() if rows:
                logger.experiment.add_figure("curves", _picture(title, rows))


def _picture(title: str, rows: Sequence[Row]) -> Figure:
    curves = {name: curve(rows, name)[1] for name in _CURVES}
    found = {name: values[None] for name, values in curves.items() if len(values)}
    epochs = int(rows[-1]["epoch"]) + 1
    return run_curves({title: found}, epochs=epochs)


class Speed(Callback):
    """Logs the images a second of each epoch's steps.

    Not to metrics.csv, which is a function of the settings.
    """

    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Starts to count."""
        self.images, self.started = 0, time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Counts a batch of all devices."""
        self.images += len(batch[0]) * trainer.world_size

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Logs it as of the epoch's last step."""
        speed = self.images / (time.perf_counter() - self.started)
        metrics = {"epoch": trainer.current_epoch, "train/images_per_second": speed}
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                logger.log_metrics(metrics, step=trainer.global_step - 1)


class EpochCounter(Callback):
    """Counts the epochs of a training, those that an earlier process has done at its start.

    Args:
        advance: Takes the epochs done since the last call.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Counts the epochs that an earlier process has done."""
        self.advance(trainer.current_epoch)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Moves on by an epoch."""
        self.advance(1)


class EpochBar(EpochCounter):
    """A progress bar over the epochs of one training or several; a line each without a terminal.

    Args:
        progress: The bar's place.
        epochs: Of all trainings.
    """

    def __init__(self, progress: Progress, epochs: int) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=epochs)
        super().__init__(partial(progress.advance, self.task))

    def describe(self, text: str) -> None:
        """Says what is being trained."""
        self.training = text
        self.progress.update(self.task, description=text)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Moves on by an epoch, with its last loss and the online probe's accuracy."""
        super().on_train_epoch_end(trainer, pl_module)
        words = [f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"]
        if isinstance(pl_module, Method):
            words.append(f"loss {pl_module.last_loss.item():.4g}")
            if pl_module.online_accuracy is not None:
                words.append(f"online probe {100 * pl_module.online_accuracy:.1f} %")
        text = f"{self.training}: {', '.join(words)}"
        console = self.progress.console
        if console.is_terminal:
            self.progress.update(self.task, description=text)
        else:
            console.print(text, soft_wrap=True)


def progress(console: Console) -> Progress:
    """Where a bar goes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
