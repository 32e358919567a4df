"""Experiments, one a file; each has ``run(settings, folder)``."""

from __future__ import annotations

from harness.experiments import failure_modes, mnist_latents, quickstart, replay, synthetic
from harness.settings import (
    FailureModesSettings,
    MNISTLatentsSettings,
    QuickstartSettings,
    ReplaySettings,
    Settings,
    SyntheticSettings,
)
from harness.tracking import RunFolder

__all__ = ["run"]


def run(settings: Settings, folder: RunFolder) -> None:
    """Runs the experiment that the settings are of."""
    match settings.experiment:
        case QuickstartSettings() as experiment:
            quickstart.run(settings, experiment, folder)
        case ReplaySettings():
            replay.run(settings, folder)
        case SyntheticSettings() as experiment:
            synthetic.run(settings, experiment, folder)
        case MNISTLatentsSettings() as experiment:
            mnist_latents.run(settings, experiment, folder)
        case FailureModesSettings():
            failure_modes.run(settings, folder)
        case other:
            raise NotImplementedError(f"no experiment for {type(other).__name__}")
