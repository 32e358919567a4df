"""Where curves go beside metrics.csv: W&B, offline unless asked otherwise, or TensorBoard."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from harness.files import write_text
from harness.processes import be_first_process
from harness.settings import LoggerSettings, SettingsError
from harness.tracking.metrics import MetricsRow

if TYPE_CHECKING:
    import wandb

_RUN_ID = "wandb-id"
_DATA_DIR = "WANDB_DATA_DIR"
_CURVES_BY = "trainer/global_step"  # what Lightning's logger calls it


def check_logger(settings: LoggerSettings) -> None:
    """Raises ``SettingsError`` if what the settings name is not installed."""
    if settings.name != "csv" and find_spec(settings.name) is None:
        raise SettingsError(
            f"logger={settings.name} needs it: pip install {settings.name}, or logger=csv for "
            f"metrics.csv alone"
        )


@contextmanager
def curve_loggers(
    settings: LoggerSettings,
    folder: Path,
    *,
    name: str,
    group: str,
    job_type: str,
    config: dict[str, Any],
    rows: Sequence[MetricsRow] = (),
) -> Iterator[list[Logger]]:
    """The logger that the settings name, ended with the block; none for "csv".

    Args:
        settings: Which.
        folder: The run's folder, below which files go.
        name: Of the run.
        group: Of runs that belong together.
        job_type: What kind of run of the group.
        config: What W&B shows as the run's config.
        rows: What an interrupted run has logged up to its checkpoint: it is logged again, as files
            cannot be cut back; online, W&B keeps what it has.

    Raises:
        SettingsError: If W&B cannot be reached.
    """
    be_first_process()  # the others have no loggers
    if settings.name == "csv":
        yield []
    elif settings.name == "tensorboard":
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        logger = TensorBoardLogger(folder, name="", version="tensorboard")
        _ = logger.experiment  # makes the file
        yield [_replayed(logger, rows)]
    else:
        if not _is_online(settings):
            shutil.rmtree(folder / "wandb", ignore_errors=True)
        with _staging(folder / "wandb"):
            labels = {"name": name, "group": group, "job_type": job_type, "config": config}
            run = _wandb_run(settings, folder, **labels)
            try:
                yield [_replayed(_ContinuedWandbLogger(run), rows)]
            except BaseException:
                run.finish(exit_code=1)  # what was logged stays readable
                raise
            run.finish()


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Has W&B put tables that wait for their upload here, not into a home that may be read-only."""
    told = os.environ.get(_DATA_DIR)
    os.environ[_DATA_DIR] = told or str(folder.resolve())
    try:
        yield
    finally:
        if told is None:
            del os.environ[_DATA_DIR]


def _replayed(logger: Logger, rows: Sequence[MetricsRow]) -> Logger:
    for row in rows:
        metrics = {key: value for key, value in row.items() if key != "step"}
        logger.log_metrics(metrics, step=int(row["step"]))
    return logger


def _wandb_run(settings: LoggerSettings, folder: Path, **labels: Any) -> wandb.Run:
    import wandb  # a machine where curves go to metrics.csv alone need not have it

    try:
        run = wandb.init(
            project=settings.project,
            dir=folder,
            mode="online" if _is_online(settings) else "offline",
            id=_run_id(folder),  # in a sweep W&B takes the agent's instead
            resume="allow" if _is_online(settings) else None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            **labels,
        )
    except wandb.errors.Error as error:
        raise SettingsError(
            f"logger=wandb, logger.mode={settings.mode}: W&B cannot be used "
            f"({' '.join(str(error).split())}): try wandb login, or logger.mode=offline and wandb "
            f"sync later"
        ) from error
    run.define_metric("*", step_metric=_CURVES_BY, step_sync=True)
    return run


def _is_online(settings: LoggerSettings) -> bool:
    """As asked; the agent of a sweep awaits its runs online unless WANDB_MODE says otherwise."""
    if "WANDB_SWEEP_ID" in os.environ:
        return os.environ.get("WANDB_MODE", "online") == "online"
    return settings.mode == "online"


def _run_id(folder: Path) -> str:
    """The same for a folder whenever its run goes on, and another when it starts anew."""
    path = folder / _RUN_ID
    if not path.exists() or not path.read_text():
        write_text(path, secrets.token_hex(8))
    return path.read_text()


class _ContinuedWandbLogger(WandbLogger):
    """Logs a run that W&B may know the beginning of.

    Args:
        run: The run; what it has of an interrupted process is not logged twice.
    """

    def __init__(self, run: wandb.Run) -> None:
        super().__init__(experiment=run)
        summary: Any = run.summary
        self.known_step = int(summary.get(_CURVES_BY, -1)) if run.resumed else -1

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics of a new step, or of none.

        An epoch's last step has two lines, of which W&B may know the first only: the second, the
        probe's, rather comes twice than not at all.
        """
        new = step is None or step > self.known_step
        if new or (step == self.known_step and "train/loss" not in metrics):
            super().log_metrics(dict(metrics), step)
