"""One dataset from one seed: every model fitted and scored, in a process of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from harness.experiments.synthetic import drawing
from harness.experiments.synthetic.datasets import DATASETS
from harness.experiments.synthetic.models import MODELS, Fitted
from harness.experiments.synthetic.scores import score
from harness.files import write_figures, write_text
from harness.progress import Report
from harness.settings import SettingsError, SyntheticSettings


@dataclass(frozen=True)
class Study:
    """What is asked of a process.

    Attributes:
        dataset: Name of the data.
        seed: Of data, models and scores.
        settings: The experiment's.
        folder: The experiment's.
        draws: Whether the figures of the dataset are drawn, of this seed's models.
    """

    dataset: str
    seed: int
    settings: SyntheticSettings
    folder: Path
    draws: bool

    @property
    def path(self) -> Path:
        """The file of the scores by model, there when the study is finished."""
        return self.folder / "studies" / f"{self.dataset},seed={self.seed}.json"


def run(study: Study, report: Report) -> None:
    """Fits and scores all models, draws them if asked, writes the scores and reports it.

    Raises:
        SettingsError: If a model's parameters are not finite.
    """
    dataset, settings = DATASETS[study.dataset], study.settings
    generator = Generator().manual_seed(study.seed)
    z_c, z_t = dataset.sample(settings.num_pairs, settings.noise, generator=generator)
    contexts = dataset.test_contexts()
    truth = dataset.truth(contexts, settings.noise)
    options: dict[str, Any] = {"noise": settings.noise, "seed": study.seed}
    scores = {"truth": _rounded(score(truth, truth, **options))}
    fitted: dict[str, Fitted] = {}
    for name, model in MODELS.items():
        started = time.process_time()
        fitted[name] = model.fit(z_c, z_t, settings, study.seed)
        seconds = time.process_time() - started
        with torch.no_grad():
            predicted = fitted[name].condition(contexts)
        if not all(bool(part.isfinite().all()) for part in (predicted.means, predicted.factors)):
            raise SettingsError(f"{model.title} has diverged on {dataset.title}, seed {study.seed}")
        scores[name] = {
            **_rounded(score(predicted, truth, **options)),
            "components": fitted[name].num_components,
            "fit_cpu_s": round(seconds, 2),
        }
    if study.draws:
        drawn = drawing.figures_of(study.dataset, fitted, z_c, z_t, settings)
        write_figures(study.folder / "figures", drawn, dpi=110)
    write_text(study.path, json.dumps(scores, indent=1) + "\n")
    report(1, "")


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
