"""From settings to results.json: trains one method from one seed, or goes on, and evaluates it.

A run that was interrupted resumes from its last whole epoch, on a CPU to the same bits:

- ``RunFolder`` (tracking/folder.py) says whether a folder is this run's and whether it is finished;
- ``fit`` (fitting.py) goes on from the checkpoint, which is written whole or not at all
  (checkpoints.py) and holds what losses, banks and the online probe remember;
- order of images, views and dropout need no state: they are functions of seed, epoch and image;
- ``MetricsFile`` (tracking/metrics.py) cuts metrics.csv back to the checkpoint's step, and other
  loggers get those lines again (tracking/loggers.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from harness import training
from harness.callbacks import ONLINE_ACCURACY, EpochProgress, Speed
from harness.checkpoints import read_checkpoint
from harness.data import ImageData
from harness.evaluation import evaluate
from harness.figures.training import run_curves
from harness.processes import is_first_process
from harness.progress import Report
from harness.settings import Settings, registry
from harness.tracking import (
    METRICS_FILE,
    MetricsFile,
    MetricsRow,
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
    words.append(f"{method.num_views} views" if method.num_views > 2 else "")
    return ", ".join(filter(None, words))


def run_training(
    data: ImageData, folder: RunFolder, *, title: str, name: str, report: Report
) -> dict[str, Any]:
    """Trains, evaluates and fills the folder, from wherever an earlier process left it.

    Args:
        data: The images.
        folder: The training's own folder, whose settings say what to train; the experiment's name
            groups W&B runs.
        title: What tables call it.
        name: What W&B calls it.
        report: Told of every epoch.

    Returns:
        What ``results.json`` holds; nothing in all processes but the first of a distributed run.

    Raises:
        SettingsError: If the folder is not one of this run, or what was asked cannot be run.
    """
    settings = folder.settings
    found = folder.finished_results()
    if found is not None:
        return found
    started = time.perf_counter()
    if not is_first_process(settings.trainer):
        training.train(settings, data, folder, loggers=[])
        return {}
    with folder.started():
        path = folder.checkpoint
        step = int(read_checkpoint(path)["global_step"]) if path else 0
        rows = MetricsFile(folder.path / METRICS_FILE, first_step=step)
        with curve_loggers(
            settings.logger,
            folder.path,
            name=name,
            group=settings.experiment.name,
            job_type=settings.method.name if settings.method else "",
            # Flat, as a W&B sweep puts its words for method and bank in place of nested settings.
            config={**dict(leaves(asdict(settings))), **provenance(), "data_variant": data.variant},
            rows=rows.rows,
        ) as others:
            module = training.train(
                settings,
                data,
                folder,
                loggers=[rows, *others],
                callbacks=[Speed(), EpochProgress(report)],
            )
            metrics = evaluate(module.backbone, data, settings, folder=folder.path)
            online = curve(rows.rows, ONLINE_ACCURACY)[1]
            results = {
                "experiment": settings.experiment.name,
                "title": title,
                "seed": settings.seed,
                "data": data.variant,
                "metrics": metrics
                | ({"online_accuracy": float(online[-1])} if len(online) else {}),
                "wall_time_s": round(time.perf_counter() - started, 1),
                "resumed_at_step": step,
                **provenance(),
            }
            folder.write_results(results)  # whatever then becomes of a logger
            _log_outcome(others, title, metrics, rows.rows)
    return results


def _log_outcome(
    loggers: Sequence[Logger], title: str, metrics: dict[str, float], rows: Sequence[MetricsRow]
) -> None:
    """The final metrics, a table of them and the curves as a picture, where a logger takes it."""
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


def _picture(title: str, rows: Sequence[MetricsRow]) -> Figure:
    curves = {name: curve(rows, name)[1] for name in _CURVES}
    found = {name: values[None] for name, values in curves.items() if len(values)}
    epochs = int(rows[-1]["epoch"]) + 1
    return run_curves({title: found}, epochs=epochs)
