"""The outcome of an experiment of many parts as a run of its own in W&B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from harness.settings import Settings
from harness.tracking.environment import provenance
from harness.tracking.folder import leaves
from harness.tracking.loggers import curve_loggers


def log_summary(
    settings: Settings,
    folder: Path,
    *,
    columns: Sequence[str],
    cells: Sequence[Sequence[Any]],
) -> None:
    """Logs the figures in the folder's ``figures`` and a table where the logger takes them.

    Args:
        settings: Of the experiment.
        folder: Its folder.
        columns: Headings of the table.
        cells: Its rows.
    """
    with curve_loggers(
        settings.logger,
        folder,
        name="summary",
        group=settings.experiment.name,
        job_type="summary",
        config={**dict(leaves(asdict(settings))), **provenance()},
    ) as loggers:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                for picture in sorted((folder / "figures").glob("*.png")):
                    logger.log_image(picture.stem, [str(picture)])
                logger.log_table("results", columns=list(columns), data=[list(c) for c in cells])
