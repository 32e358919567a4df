"""Experiment 3 on the page: what its runs measured and drew, beside its encoders' trainings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.metrics import METRICS
from harness.report.markdown import Picture, Table, escape, heading

COMPLETIONS = {
    "jepa": "JEPA predictor",
    "gje": "Unimodal GJE",
    "gje_t": "Calibrated t",
    "gmje": "Parametric GMJE",
    "gmje_em": "GMJE by EM",
    "gmje_t": "Ten calibrated t",
    "mdn": "GMJE-MDN",
}
# The paper's Table 2 (Huang 2026, Sec. 5.3): log det, trace, spread.
_PRINTED = {
    "simclr": ("-878.99", "0.85", "0.55"),
    "gje": ("-636.15", "0.99", ""),
    "gmje": ("-621.58", "1.00", "1.43"),
}
_SHAPE = ("log_det", "trace", "spread")
_FIT = ("log_likelihood", "components_used", "purity")
_SAMPLES = ("frechet", "precision", "recall", "coverage", "confident", "classes", "nearest")
_SHOWN_MODES = (1, 2, 3, 5)
_INDENT = 2 * "\N{NO-BREAK SPACE}"  # others are lost in HTML
_PICTURES = {
    "map": "As the paper's Figure 9: t-SNE of test embeddings, by class, and of samples.",
    "grids": "As the paper's Figure 10: samples decoded, a grid for each of its ten seeds.",
    "nearest": "Samples above the training images closest to them.",
}


def build(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> Iterator[str | Table | Picture]:
    """The parts of every finished run of mnist_latents; none if there is none.

    Args:
        found: The results of experiments by their folders.
    """
    whole = [(folder, results) for folder, results in found if "completion" in results]
    for number, (folder, results) in enumerate(whole, 1):
        yield from _run(results, folder, name=f"latents-{number}")


def _run(results: Mapping[str, Any], folder: Path, *, name: str) -> Iterator[str | Table | Picture]:
    commits = ", ".join(results.get("commits", [results["commit"]]))
    yield heading(2, f"mnist_latents, {folder.name}: densities, samples, completions")
    yield from tables(results)
    drawn = {
        f"{row}_{kind}": f"{found['title']}. {about}"
        for row, found in results["rows"].items()
        for kind, about in _PICTURES.items()
    }
    drawn["calibration"] = "Share of test embeddings in regions that should hold a share of them."
    drawn["completions"] = "Upper halves, what they are of, and the likeliest modes, decoded."
    for picture, caption in drawn.items():
        path = folder / "figures" / f"{picture}.png"
        if path.exists():
            source = f"figures/{name}-{picture.replace('_', '-')}.png"
            yield Picture(source, path.read_bytes(), caption, caption)
    yield escape(
        f"{results['data']}; seed {results['seed']}; {results['wall_time_s']:.0f} s since the last "
        f"start; commit {commits}; python -m harness {shlex.join(results['command'])}"
    )


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Every table of ``results.json`` of the experiment."""
    kinds = (_table_2, _fits, _samples, _out_of_distribution, _completion)
    return [of_kind(results) for of_kind in kinds]


def _table_2(results: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in results["rows"].items():
        rows.append([row["title"], *_cells(row["densities"][row["density"]], _SHAPE)])
        if name in _PRINTED:
            rows.append([f"{_INDENT}printed", *_PRINTED[name]])
    return Table(
        "The paper's Table 2: means over the components of a row's density that are not empty.",
        ["", *_labels(_SHAPE)],
        rows,
    )


def _fits(results: Mapping[str, Any]) -> Table:
    columns = (*_SHAPE, *_FIT)
    rows: list[list[str]] = []
    for row in results["rows"].values():
        rows += [[row["title"]], *_of_densities(row, columns)]
    return Table(
        "Densities of test embeddings. Log-likelihoods (nats, mean) compare within an encoder "
        "only. used: effective number of components; purity: of their classes; *: the row's own "
        "density.",
        ["", *_labels(columns)],
        rows,
    )


def _samples(results: Mapping[str, Any]) -> Table:
    accuracy = f"{100.0 * results['classifier']['accuracy']:.2f} %"
    rows = [["test images", *_cells(results["classifier"]["real"], _SAMPLES)]]
    for row in results["rows"].values():
        rows += [[row["title"]], [f"{_INDENT}test decoded", *_cells(row["decoder"], _SAMPLES)]]
        rows += _of_densities(row, _SAMPLES)
    return Table(
        f"Samples decoded, in the features of a classifier that names {accuracy} of the test "
        "images. Test images, and what their embeddings decode to, are the ceilings. > 0.9: share "
        "that it is sure of; classes: effective number; nearest: median distance to the closest "
        "training image.",
        ["", *_labels(_SAMPLES)],
        rows,
    )


def _out_of_distribution(results: Mapping[str, Any]) -> Table:
    areas = results["classifier"]["out_of_distribution"]
    sets = list(areas)
    rows = [["classifier", *(f"{areas[name]:.3f}" for name in sets)]]
    for row in results["rows"].values():
        rows.append([row["title"]])
        for score in row["out_of_distribution"][sets[0]]:
            mark = " *" if score == row["density"] else ""
            of_score = (f"{row['out_of_distribution'][name][score]:.3f}" for name in sets)
            rows.append([f"{_INDENT}{score}{mark}", *of_score])
    return Table(
        "Out-of-distribution images: area under the ROC curve of minus the log-density, "
        "of the distance to the nearest training embedding, and of the classifier's confidence.",
        ["", *sets],
        rows,
    )


def _completion(results: Mapping[str, Any]) -> Table:
    rows = []
    levels: dict[str, str] = {}
    for name, found in results["completion"].items():
        # "coverage_0.5" is of regions that should hold 50 percent.
        shares = {key: key.removeprefix("coverage_") for key in found if "coverage_" in key}
        levels = {key: f"{100.0 * float(share):.0f}" for key, share in shares.items()}
        covered = (f"{100.0 * found[key]:.0f}" for key in levels)
        best = found["best_of"][: 1 if name == "jepa" else None]
        rows.append([COMPLETIONS.get(name, name), f"{found['nll']:.0f}", *covered, *_percent(best)])
        if name == "jepa":
            blank = [""] * (1 + len(levels))
            rows.append([f"{_INDENT}likeliest classes", *blank, *_percent(found["top_of_first"])])
    return Table(
        "Whole images from their upper halves, by densities of training images: mean negative "
        "log-likelihood of test embeddings (nats), percent of 500 of them in the regions of "
        "highest density that should hold as many as the heading says, percent whose class is "
        "among those of the 1 to 5 likeliest modes (of the single image that JEPA predicts: its "
        "likeliest 1 to 5 classes).",
        ["", "NLL", *levels.values(), *map(str, _SHOWN_MODES)],
        rows,
    )


def _of_densities(row: Mapping[str, Any], columns: Sequence[str]) -> list[list[str]]:
    own = row["density"]
    return [
        [f"{_INDENT}{kind}{' *' if kind == own else ''}", *_cells(found, columns)]
        for kind, found in row["densities"].items()
    ]


def _labels(columns: Sequence[str]) -> list[str]:
    return [METRICS[name].label for name in columns]


def _cells(found: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [METRICS[name].text(found[name]) if name in found else "" for name in columns]


def _percent(shares: Sequence[float]) -> list[str]:
    return [f"{100.0 * shares[k - 1]:.1f}" if k <= len(shares) else "" for k in _SHOWN_MODES]
