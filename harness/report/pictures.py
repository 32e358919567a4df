"""The figures of a report: which rows and lines they have, and how a page takes them."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from harness import figures
from harness.report.document import Picture
from harness.report.reading import QUANTITIES, Array
from harness.report.summary import Row, differences, option
from harness.settings import registry

_AXES = {
    "train/loss": "loss",
    "eval/online_accuracy": "online probe, %",
    "bank/ess_ratio": "ESS / pool size",
    "bank/unique_fraction": "unique share",
    "bank/age_mean": "mean age (steps)",
    "bank/false_negatives": "false negatives",
}
_FIGURE_8 = ("train/loss", "eval/online_accuracy", "bank/ess_ratio")


def figure_8(rows: Sequence[Row], *, epochs: int, name: str, about: str) -> Iterator[Picture]:
    """Loss, probe accuracy and ESS of banks, as in the paper's Figure 8, if any was logged."""
    facets = _facets(rows)
    if facets:
        axes = _axes(curves for banks in facets.values() for curves in banks.values())
        yield Picture(
            name,
            to_svg(figures.bank_curves(facets, axes, epochs=epochs), name=name),
            f"Line charts over epochs of {', '.join(axes.values())}, a row of panels for each of: "
            f"{'; '.join(facets)}. The table above has the final numbers.",
            f"As the paper's Figure 8. {about} Lines are means, bands the range over seeds. Losses "
            "of different rows are over different negatives: do not compare them.",
        )


def every_run(rows: Sequence[Row], *, epochs: int, name: str, about: str) -> Iterator[Picture]:
    """The curves of every run, a row of panels a configuration, if any was logged."""
    drawn = {row.title: curves for row in rows if (curves := _scaled(row, QUANTITIES))}
    if drawn:
        axes = _axes(drawn.values())
        yield Picture(
            name,
            to_svg(figures.run_curves(drawn, axes, epochs=epochs), name=name),
            f"Small line charts over epochs of {', '.join(axes.values())}, a row of panels for "
            f"each of: {'; '.join(drawn)}.",
            f"{about} A line is a run; a point is the mean over an epoch, or over a part of it in "
            "a short training. metrics.csv of each run holds every step and further terms.",
        )


def to_svg(figure: Figure, *, name: str) -> str:
    """A figure as SVG for any page: system fonts, ``currentColor`` for black, ids of its own."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    for pattern, replacement in (
        (r"<style .*?</style>", ""),  # would hold for the whole page
        (r"#000000", "currentColor"),
        (r"font-family: [^;\"]*", "font-family: system-ui, sans-serif"),
        (r"(?<= id=\")|(?<=url\(#)|(?<=xlink:href=\"#)", f"{name}-"),
        (r"\s*\n\s*", " "),
    ):
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    return svg.replace("<svg ", '<svg fill="currentColor" stroke-linejoin="round" ', 1)


def _facets(rows: Sequence[Row]) -> dict[str, dict[str, Mapping[str, Array]]]:
    """Rows of panels by everything but the bank, lines by the bank; its size is of the former."""
    differing = differences([row.config for row in rows])
    of_bank = [name for name in differing if name.startswith("bank.") and name != "bank.size"]
    others = [name for name in differing if name not in of_bank]
    places = [(_facet(row, others), str(row.config.get("bank.name"))) for row in rows]
    found: dict[str, dict[str, Mapping[str, Array]]] = {}
    for row, (facet, bank) in zip(rows, places, strict=True):
        line = registry.title("bank", bank)
        if Counter(places)[facet, bank] > 1:  # the bank's name does not say it all
            told = (f"{name.removeprefix('bank.')} {option(row.config, name)}" for name in of_bank)
            line += f", {', '.join(told)}"
        curves = _scaled(row, _FIGURE_8)
        if curves:
            found.setdefault(facet, {})[line] = curves
    return found


def _facet(row: Row, names: Sequence[str]) -> str:
    words = {"bank.size": "M =", "method.in_batch_negatives": "in-batch negatives:"}
    told = (f"{words.get(name, name)} {option(row.config, name)}" for name in names)
    return ", ".join(told) or "all runs"


def _scaled(row: Row, quantities: Sequence[str]) -> dict[str, Array]:
    """A row's curves as they are drawn: accuracies in percent."""
    factors = {"eval/online_accuracy": 100.0}
    return {
        name: factors.get(name, 1.0) * curves
        for name in quantities
        if (curves := row.curves(name)) is not None
    }


def _axes(drawn: Iterable[Mapping[str, Array]]) -> dict[str, str]:
    """The quantities that are anywhere, by the headings of their panels."""
    there = {name for curves in drawn for name in curves}
    return {name: heading for name, heading in _AXES.items() if name in there}
