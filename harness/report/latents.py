"""Experiment 3 on the page: what its runs measured and drew, beside its encoders' trainings."""

from __future__ import annotations

import base64
import json
import shlex
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.report.document import Block, Heading, Paragraph, Picture
from harness.tracking import RESULTS

_PICTURES = {
    "map": "As the paper's Figure 9: t-SNE of test embeddings, by class, and of samples.",
    "grids": "As the paper's Figure 10: samples decoded, a grid for each of its ten seeds.",
    "nearest": "Samples above the training images closest to them.",
}


def latents(folders: Sequence[Path]) -> list[Block]:
    """The blocks of every finished run of mnist_latents at any depth; none if there is none."""
    paths = {path.resolve(): path for folder in folders for path in folder.rglob(RESULTS)}
    blocks: list[Block] = []
    for number, path in enumerate(sorted(paths.values()), 1):
        results = _results(path)
        if results is not None:
            blocks += _run(results, path.parent, name=f"latents-{number}")
    return blocks


def _results(path: Path) -> dict[str, Any] | None:
    """A file's content if it is of a whole run of the experiment, and not of its trainings."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # told where trainings are read
    ours = isinstance(found, dict) and found.get("experiment") == "mnist_latents"
    return found if ours and "completion" in found else None


def _run(results: dict[str, Any], folder: Path, *, name: str) -> Iterator[Block]:
    # Here, as it imports scikit-learn's parts, which other reports do without.
    from harness.experiments.mnist_latents.tables import tables

    commits = ", ".join(results.get("commits", [results["commit"]]))
    yield Heading(2, f"mnist_latents, {folder.name}: densities, samples, completions")
    yield Paragraph(
        f"{results['data']}; seed {results['seed']}; {results['wall_time_s']:.0f} s since the last "
        f"start; commit {commits}; python -m harness {shlex.join(results['command'])}"
    )
    yield from tables(results)
    drawn = {
        f"{row}_{kind}": f"{found['title']}. {about}"
        for row, found in results["rows"].items()
        for kind, about in _PICTURES.items()
    }
    drawn["completions"] = "Upper halves, what they are of, and the best guesses, decoded."
    for picture, caption in drawn.items():
        path = folder / "figures" / f"{picture}.png"
        if path.exists():
            slug = picture.replace("_", "-")
            yield Picture(f"{name}-{slug}", _embedded(path), caption, caption)


def _embedded(path: Path) -> str:
    """A PNG file inside an SVG."""
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
        f'<image width="{width}" height="{height}" '
        f'href="data:image/png;base64,{base64.b64encode(content).decode()}"/></svg>'
    )
