"""The pictures of a row: Figures 9 and 10, and samples beside the nearest training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor

from harness.data import evenly_spaced
from harness.evaluation.conditional import CURVE
from harness.evaluation.latents import sample
from harness.evaluation.mixtures import GaussianMixtures
from harness.experiments.mnist_latents.completion import KINDS, shown_file
from harness.experiments.mnist_latents.evaluating import GenerationEvaluator
from harness.experiments.mnist_latents.phases import TrainedRow
from harness.figures.latents import Pixels, calibration, image_grids, image_rows, latent_map
from harness.files import write_figures
from harness.report.latents import COMPLETIONS

FIGURES = "figures"  # the folder of a run's pictures
_FIRST_SEED, _GRIDS, _OF_GRID = 1000, 10, 16  # [P]
_MAPPED, _SAMPLED = 2000, 500  # [P]


def draw(
    name: str,
    row: TrainedRow,
    density: GaussianMixtures,
    evaluator: GenerationEvaluator,
    folder: Path,
) -> None:
    """Writes a row's pictures: ``<name>_map``, ``<name>_grids`` and ``<name>_nearest``."""
    title = row.settings.title
    seeds = range(_FIRST_SEED, _FIRST_SEED + _GRIDS)
    grids = [row.decoder.decode(sample(density, _OF_GRID, seed=seed)) for seed in seeds]
    _, indices = evaluator.nearest(grids[2])  # sample 2 is the one that the paper shows [P]
    drawn = {
        "map": _map(row, density, evaluator),
        "grids": image_grids(
            np.stack([_pixels(grid) for grid in grids]), [f"{title}, {seed}" for seed in seeds]
        ),
        "nearest": image_rows(
            {"sampled": _pixels(grids[2]), "closest": _pixels(evaluator.train.images[indices])},
            title=f"{title}, seed {_FIRST_SEED + 2}, and the closest training images",
        ),
    }
    named = {f"{name}_{kind}": figure for kind, figure in drawn.items()}
    write_figures(folder, named, dpi=150)


def draw_completions(measured: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Writes ``completions`` and ``calibration`` of a run.

    Under images' upper halves what they are and may be, row by row; and the shares of targets in
    regions that should hold ``CURVE``.
    """
    pixels: dict[str, Pixels] = {}
    for kind in KINDS:
        rows = torch.load(shown_file(folder, kind))
        pixels |= {name: _pixels(images) for name, images in rows.items()}
    curves = {COMPLETIONS[name]: found["calibration"] for name, found in measured.items()}
    title = "Test images whose upper half tells least of their class"
    drawn = {
        "completions": image_rows(pixels, title=title),
        "calibration": calibration(CURVE, curves),
    }
    write_figures(folder / FIGURES, drawn, dpi=150)


def _map(row: TrainedRow, density: GaussianMixtures, evaluator: GenerationEvaluator) -> Figure:
    indices = evenly_spaced(len(row.test), _MAPPED)
    real, sampled = row.test[indices].cpu(), sample(density, _SAMPLED, seed=_FIRST_SEED)
    together = torch.cat([real, sampled]).numpy()
    placed = TSNE(init="pca", random_state=0).fit_transform(together).astype(np.float64)
    return latent_map(
        placed[: len(real)],
        evaluator.test.labels[indices].tolist(),
        placed[len(real) :],
        title=f"{row.settings.title}: t-SNE of test embeddings and samples",
    )


def _pixels(images: Tensor) -> Pixels:  # shape: (N, H, W)
    found: Pixels = images[:, 0].cpu().numpy()
    return found
