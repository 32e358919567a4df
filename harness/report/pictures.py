"""The figures of a report: which rows and lines they have, and how a page takes them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

import harness.methods  # noqa: F401  # registers the titles of banks
from harness.figures.training import bank_curves, run_curves, shown_metrics
from harness.report.markdown import Picture
from harness.report.reading import Array
from harness.report.summary import Row, differences, option
from harness.settings import registry

_FIGURE_8 = ("train/loss", "eval/online_accuracy", "bank/ess_ratio")


def figure_8(rows: Sequence[Row], *, epochs: int, name: str) -> Iterator[Picture]:
    """Loss, probe accuracy and ESS of banks, as in the paper's Figure 8, if any was logged."""
    facets = _facets(rows)
    if facets:
        axes = _headings(curves for banks in facets.values() for curves in banks.values())
        yield _picture(
            name,
            bank_curves(facets, epochs=epochs),
            f"Line charts over epochs of {axes}, a row of panels for each of: "
            f"{'; '.join(facets)}. The table above has the final numbers.",
            "As the paper's Figure 8: lines are means, bands the range over seeds. Losses of "
            "different rows are over different negatives: do not compare them.",
        )


def every_run(rows: Sequence[Row], *, epochs: int, name: str) -> Iterator[Picture]:
    """The curves of every run, a row of panels a configuration, if any was logged."""
    drawn = {row.title: curves for row in rows if (curves := row.curves())}
    if drawn:
        yield _picture(
            name,
            run_curves(drawn, epochs=epochs),
            f"Small line charts over epochs of {_headings(drawn.values())}, a row of panels for "
            f"each of: {'; '.join(drawn)}.",
        )


def _picture(name: str, figure: Figure, alt: str, caption: str = "") -> Picture:
    """A figure as SVG, the same whenever it is made, in the fonts of whoever looks at it."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Picture(f"figures/{name}.svg", file.getvalue(), alt, caption)


def _facets(rows: Sequence[Row]) -> dict[str, dict[str, Mapping[str, Array]]]:
    """Rows of panels by everything but the bank, lines by the bank; its size is of the former."""
    differing = differences([row.config for row in rows])
    of_bank = [name for name in differing if name.startswith("bank.") and name != "bank.size"]
    others = [name for name in differing if name not in of_bank]
    titles = [(_facet(row, others), str(row.config.get("bank.name"))) for row in rows]
    found: dict[str, dict[str, Mapping[str, Array]]] = {}
    for row, (facet, bank) in zip(rows, titles, strict=True):
        line = registry.title("bank", bank)
        if Counter(titles)[facet, bank] > 1:  # the bank's name does not say it all
            told = (f"{name.removeprefix('bank.')} {option(row.config, name)}" for name in of_bank)
            line += f", {', '.join(told)}"
        curves = {name: curve for name, curve in row.curves().items() if name in _FIGURE_8}
        if curves:
            found.setdefault(facet, {})[line] = curves
    return found


def _facet(row: Row, names: Sequence[str]) -> str:
    words = {"bank.size": "M =", "method.in_batch_negatives": "in-batch negatives:"}
    told = (f"{words.get(name, name)} {option(row.config, name)}" for name in names)
    return ", ".join(told) or "all runs"


def _headings(drawn: Iterable[Mapping[str, Array]]) -> str:
    """The headings of the panels."""
    return ", ".join(shown.label for shown in shown_metrics(drawn))
