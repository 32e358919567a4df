"""What a run found as tables, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.evaluation.conditional import LEVELS
from harness.experiments.mnist_latents.completion import CALIBRATED, GUESSES, NAMES
from harness.report.document import Table

# The paper's Table 2 (Huang 2026, Sec. 5.3): log det, trace, spread.
_PRINTED = {
    "simclr": ("-878.99", "0.85", "0.55"),
    "gje": ("-636.15", "0.99", ""),
    "gmje": ("-621.58", "1.00", "1.43"),
}
# What a table calls a figure, and its decimals.
_SHAPE = {"log_det": ("log det", 2), "trace": ("trace", 2), "spread": ("spread", 2)}
_FIT = {
    "log_likelihood": ("log-lik.", 1),
    "components_used": ("used", 1),
    "purity": ("purity", 2),
}
_SAMPLES = {
    **{"frechet": ("Fréchet", 1), "precision": ("prec.", 2), "recall": ("recall", 2)},
    **{"coverage": ("cover.", 2), "confident": ("> 0.9", 2), "classes": ("classes", 1)},
    "nearest": ("nearest", 1),
}
_SHOWN_GUESSES = (1, 2, 3, 5)
_INDENT = 2 * "\N{NO-BREAK SPACE}"  # others are lost in HTML


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Every table of ``results.json`` of the experiment."""
    return [
        _table_2(results),
        _fits(results),
        _samples(results),
        _strange(results),
        _completion(results),
    ]


def _table_2(results: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in results["rows"].items():
        rows.append([row["title"], *_cells(row["densities"][row["density"]], _SHAPE)])
        if name in _PRINTED:
            rows.append([f"{_INDENT}printed", *_PRINTED[name]])
    return Table(
        "The paper's Table 2: means over the components of a row's density that are not empty.",
        ["", *_headings(_SHAPE)],
        rows,
    )


def _fits(results: Mapping[str, Any]) -> Table:
    columns = {**_SHAPE, **_FIT}
    rows: list[list[str]] = []
    for row in results["rows"].values():
        rows += [[row["title"]], *_of_densities(row, columns)]
    return Table(
        "Densities of test embeddings. Log-likelihoods (nats, mean) compare within an encoder "
        "only. used: effective number of components; purity: of their classes; *: the row's own "
        "density.",
        ["", *_headings(columns)],
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
        ["", *_headings(_SAMPLES)],
        rows,
    )


def _strange(results: Mapping[str, Any]) -> Table:
    sets = list(results["classifier"]["strange"])
    rows = [["classifier", *(f"{area:.3f}" for area in results["classifier"]["strange"].values())]]
    for row in results["rows"].values():
        rows.append([row["title"]])
        for score in row["strange"][sets[0]]:
            mark = " *" if score == row["density"] else ""
            areas = (f"{row['strange'][name][score]:.3f}" for name in sets)
            rows.append([f"{_INDENT}{score}{mark}", *areas])
    return Table(
        "Strange images told from test images: area under the ROC curve of minus the log-density, "
        "of the distance to the nearest training embedding, and of the classifier's confidence.",
        ["", *sets],
        rows,
    )


def _completion(results: Mapping[str, Any]) -> Table:
    rows = []
    for name, found in results["completion"].items():
        covered = (f"{100.0 * found[f'coverage_{level}']:.0f}" for level in LEVELS)
        best = found["best_of"][: 1 if name == "jepa" else GUESSES]
        rows.append([NAMES.get(name, name), f"{found['nll']:.0f}", *covered, *_percent(best)])
        if name == "jepa":
            blank = [""] * (1 + len(LEVELS))
            rows.append([f"{_INDENT}likeliest classes", *blank, *_percent(found["top_of_first"])])
    return Table(
        "Whole images from their upper halves, by densities of training images: mean negative "
        f"log-likelihood of test embeddings (nats), percent of {CALIBRATED} of them in the regions "
        "of highest density that should hold as many as the heading says, percent whose class is "
        "among those of the best 1 to 5 guesses (of the single image that JEPA predicts: its "
        "likeliest 1 to 5 classes).",
        [
            "",
            "NLL",
            *(f"{100 * level:.0f}" for level in LEVELS),
            *map(str, _SHOWN_GUESSES),
        ],
        rows,
    )


def _of_densities(
    row: Mapping[str, Any], columns: Mapping[str, tuple[str, int]]
) -> list[list[str]]:
    own = row["density"]
    return [
        [f"{_INDENT}{kind}{' *' if kind == own else ''}", *_cells(found, columns)]
        for kind, found in row["densities"].items()
    ]


def _headings(columns: Mapping[str, tuple[str, int]]) -> list[str]:
    return [heading for heading, _ in columns.values()]


def _cells(found: Mapping[str, float], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    return [
        f"{found[name]:.{decimals}f}" if name in found else ""
        for name, (_, decimals) in columns.items()
    ]


def _percent(shares: Sequence[float]) -> list[str]:
    return [f"{100.0 * shares[k - 1]:.1f}" if k <= len(shares) else "" for k in _SHOWN_GUESSES]
