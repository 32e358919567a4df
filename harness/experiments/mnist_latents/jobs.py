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
from harness.experiments.mnist_latents.densities import fit_densities, save
from harness.experiments.mnist_latents.evaluating import GenerationEvaluator, measure
from harness.experiments.mnist_latents.phases import CLASSIFIER_EPOCHS, Phases
from harness.files import write_text
from harness.progress import Report
from harness.settings import MNISTLatentsSettings
from harness.tracking import RESULTS, RunFolder, commit
from harness.workers import Job

Part = Callable[[Phases], dict[str, Any]]


def every_job(folder: RunFolder, experiment: MNISTLatentsSettings) -> list[Job]:
    """Every job of a run; of those that can be done at once, free processes take the first."""

    def job(name: str, part: Part, *, units: int, needs: set[str]) -> Job:
        result = _place(folder, name)
        do = partial(_measure, part, folder, result)
        return Job(name, do, result, units, frozenset(needs))

    found = [job("classifier", _classifier, units=CLASSIFIER_EPOCHS, needs=set())]
    # First the row that completions need, as they fill the processes in the end.
    names = sorted(experiment.rows, key=lambda name: name != experiment.completed)
    for name in names:
        trained = folder.path / "trainings" / name / RESULTS
        train, epochs = partial(_train, name, folder), folder.settings.trainer.epochs
        found.append(Job(f"encoders/{name}", train, trained, epochs))
    for name in names:
        part, needs = partial(_row, name=name), {"classifier", f"encoders/{name}"}
        found.append(job(f"rows/{name}", part, units=experiment.decoder_epochs, needs=needs))
    for kind in KINDS:
        part, needs = partial(_completion, kind=kind), {f"rows/{experiment.completed}"}
        name = f"completion/{kind}"
        found.append(job(name, part, units=experiment.completion_epochs, needs=needs))
    return found


def results(folder: RunFolder, experiment: MNISTLatentsSettings) -> dict[str, Any]:
    """What all jobs have measured, and at which commits."""
    commits = set()

    def measured(name: str) -> dict[str, Any]:
        content = json.loads(_place(folder, name).read_text())
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


def _place(folder: RunFolder, name: str) -> Path:
    return folder.path / "measured" / f"{name}.json"


def _train(name: str, folder: RunFolder, report: Report) -> None:
    Phases(folder, report).encoder(name)


def _measure(part: Part, folder: RunFolder, result: Path, report: Report) -> None:
    found = {"measured": part(Phases(folder, report)), "commit": commit()}
    result.parent.mkdir(parents=True, exist_ok=True)
    write_text(result, json.dumps(found, indent=2) + "\n")


def _evaluator(phases: Phases) -> GenerationEvaluator:
    return GenerationEvaluator(phases.classifier(), phases.data)


def _classifier(phases: Phases) -> dict[str, Any]:
    return _evaluator(phases).about_itself()


def _row(phases: Phases, *, name: str) -> dict[str, Any]:
    row, evaluator = phases.row(name), _evaluator(phases)
    number, seed = phases.experiment.num_components, phases.settings.seed
    found = fit_densities(row.encoder.criterion, row.train, num_components=number, seed=seed)
    if isinstance(row.encoder.criterion, GMJEPrototypeLoss):
        save(row.encoder.criterion.mixture(), phases.folder.path / "densities" / f"{name}.pt")
    drawing.draw(
        name, row, found[row.settings.density], evaluator, phases.folder.path / drawing.FIGURES
    )
    return measure(row, found, evaluator, seed=seed)


def _completion(phases: Phases, *, kind: str) -> dict[str, Any]:
    row = phases.row(phases.experiment.completed)
    return complete(phases, row, _evaluator(phases), kind)
