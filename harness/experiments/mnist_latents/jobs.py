"""The jobs of a run: each trains or measures a part, in any process, and leaves a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gmje_plugin import GMJEPrototypeLoss
from harness.experiments.mnist_latents import drawing
from harness.experiments.mnist_latents.completion import KINDS, complete
from harness.experiments.mnist_latents.densities import densities, save
from harness.experiments.mnist_latents.evaluating import GenerationEvaluator, measure
from harness.experiments.mnist_latents.phases import CLASSIFIER_EPOCHS, Phases
from harness.files import write_text
from harness.progress import Report
from harness.settings import MNISTLatentsSettings, Settings
from harness.tracking import RESULTS, commit
from harness.workers import Job

Part = Callable[[Phases], dict[str, Any]]


def jobs(settings: Settings, experiment: MNISTLatentsSettings, path: Path) -> list[Job]:
    """Every job of a run; of those that can be done at once, free processes take the first."""

    def job(name: str, part: Part, *, units: int, needs: set[str]) -> Job:
        result = _place(path, name)
        do = partial(_measure, part, settings, path, result)
        return Job(name, do, result, units, frozenset(needs))

    found = [job("classifier", _classifier, units=CLASSIFIER_EPOCHS, needs=set())]
    # First the row that completions need, as they fill the processes in the end.
    names = sorted(experiment.rows, key=lambda name: name != experiment.completed)
    for name in names:
        trained = path / "trainings" / name / RESULTS
        train = partial(_train, name, settings, path)
        found.append(Job(f"encoders/{name}", train, trained, settings.trainer.epochs))
    for name in names:
        part, needs = partial(_row, name=name), {"classifier", f"encoders/{name}"}
        found.append(job(f"rows/{name}", part, units=experiment.decoder_epochs, needs=needs))
    for kind in KINDS:
        part, needs = partial(_completion, kind=kind), {f"rows/{experiment.completed}"}
        name = f"completion/{kind}"
        found.append(job(name, part, units=experiment.completion_epochs, needs=needs))
    return found


def results(experiment: MNISTLatentsSettings, path: Path) -> dict[str, Any]:
    """What all jobs have measured, and at which commits."""
    commits = set()

    def measured(name: str) -> dict[str, Any]:
        content = json.loads(_place(path, name).read_text())
        commits.add(content["commit"])
        found: dict[str, Any] = content["measured"]
        return found

    completed = [measured(f"completion/{kind}") for kind in KINDS]
    return {
        "classifier": measured("classifier"),
        "rows": {name: measured(f"rows/{name}") for name in experiment.rows},
        "completion": {name: found for part in completed for name, found in part.items()},
        "commits": sorted(map(str, commits)),
    }


def _place(path: Path, name: str) -> Path:
    return path / "measured" / f"{name}.json"


def _train(name: str, settings: Settings, path: Path, report: Report) -> None:
    Phases.of(settings, path, report).encoder(name)


def _measure(part: Part, settings: Settings, path: Path, result: Path, report: Report) -> None:
    found = {"measured": part(Phases.of(settings, path, report)), "commit": commit()}
    result.parent.mkdir(parents=True, exist_ok=True)
    write_text(result, json.dumps(found, indent=2) + "\n")


def _classifier(phases: Phases) -> dict[str, Any]:
    return GenerationEvaluator.of(phases.classifier(), phases.data).about_itself()


def _row(phases: Phases, *, name: str) -> dict[str, Any]:
    row, evaluator = phases.row(name), GenerationEvaluator.of(phases.classifier(), phases.data)
    number, seed = phases.experiment.num_components, phases.settings.seed
    found = densities(row.criterion, row.train, num_components=number, seed=seed)
    if isinstance(row.criterion, GMJEPrototypeLoss):
        save(row.criterion.mixture(), phases.folder.path / "densities" / f"{name}.pt")
    drawing.draw(
        name, row, found[row.settings.density], evaluator, phases.folder.path / drawing.FIGURES
    )
    return measure(row, found, evaluator, phases.data, seed=seed)


def _completion(phases: Phases, *, kind: str) -> dict[str, Any]:
    row = phases.row(phases.experiment.completed)
    return complete(phases, row, GenerationEvaluator.of(phases.classifier(), phases.data), kind)
