"""Experiments, one a file; each has ``run(settings, folder)``."""

from __future__ import annotations

from harness.experiments import quickstart
from harness.settings import QuickstartSettings, Settings, SettingsError
from harness.tracking import RunFolder

__all__ = ["run"]


def run(settings: Settings, folder: RunFolder) -> None:
    """Runs the experiment that the settings are of."""
    if isinstance(settings.experiment, QuickstartSettings):
        quickstart.run(settings, settings.experiment, folder)
    else:
        raise SettingsError(f"there is no experiment {settings.experiment.name!r}")
