"""Reports of trainings made up here: every number on the page is known."""

from __future__ import annotations

import csv
import json
import os
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from harness.__main__ import main
from harness.figures.training import bank_curves, run_curves
from harness.report import write_report
from harness.report.reading import binned
from harness.settings import SettingsError

JPEG = "CIFAR-10 (JPEG): 50000 training images, 10000 test images"
BANKS = {
    "fifo": "MoCo, FIFO",
    "smc": "MoCo, SMC",
    "smc_paper": "MoCo, SMC (Algorithm 2)",
}
EPOCHS, STEPS = 4, 12


def training(
    root: Path,
    *,
    seed: int,
    experiment: str = "banks",
    method: str = "moco",
    bank: str | None = "fifo",
    size: int = 256,
    in_batch: bool = False,
    title: str | None = None,
    data: str = JPEG,
    epochs: int = EPOCHS,
    learning_rate: float = 0.06,
    finished: bool = True,
    curves: bool = False,
    command: list[str] | None = None,
    resumed_at_step: int = 0,
    **other: Any,
) -> Path:
    """Writes a folder as a training leaves it; its numbers follow from its options."""
    name = f"{experiment}-{method}-{bank}-{size}-{in_batch}-{epochs}-{learning_rate}-{seed}"
    folder = root / name
    folder.mkdir(parents=True)
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    config = {
        "experiment": {"name": experiment, "paper_epochs": 1000},
        "method": {"name": method, "learning_rate": learning_rate},
        "bank": None,
        "data": {"name": "cifar10", "root": "data", "split": "test", "imbalance": 1.0}
        | {"order": "shuffled"},
        "backbone": {"name": "small_cnn", "width": 32},
        "trainer": {"epochs": epochs, "batch_size": 256, "threads": 1},
        "evaluation": {"knn_k": 200, "probe": "converged"},
        "logger": {"name": "csv"},
        "seed": seed,
        "output_root": str(root),
        "overwrite": False,
    }
    if bank:
        config["method"]["in_batch_negatives"] = in_batch
        config["bank"] = {"name": bank, "size": size}
        if bank != "fifo":
            config["bank"]["count_own_query"] = bank == "smc_paper"
    for key, value in other.items():
        group, _, option = key.partition("__")
        config[group] = {**config[group], option: value} if option else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    logged_epochs = epochs if finished else max(1, epochs // 2)
    accuracy = 0.3 + seed / 1000
    with (folder / "metrics.csv").open("w", newline="") as file:
        lines = csv.DictWriter(
            file,
            [
                *("step", "epoch", "train/loss", "bank/ess_ratio", "bank/unique_fraction"),
                "eval/online_accuracy",
            ],
        )
        lines.writeheader()
        for step in range(logged_epochs * STEPS):
            share = (step + 1) / (epochs * STEPS)
            line = {"step": step, "epoch": step // STEPS}
            line["train/loss"] = 5.5 - 1.5 * share**0.3 + 0.05 * generator.normal() + in_batch
            if bank and step > 2:
                line["bank/ess_ratio"] = 1 - 0.3 * share + 0.02 * generator.normal()
                line["bank/unique_fraction"] = 0.6 if bank == "smc_paper" else 1.0
            if curves:
                lines.writerow(line)
            if (step + 1) % STEPS == 0:
                accuracy = 0.3 + 0.25 * share**0.5 + 0.004 * generator.normal()
                line = {"step": step, "epoch": step // STEPS, "eval/online_accuracy": accuracy}
                if curves:
                    lines.writerow(line)
    if finished:
        results = {
            "experiment": experiment,
            "title": title or title_of(method, bank, size, in_batch),
            "seed": seed,
            "data": data,
            "metrics": {
                "knn_accuracy": accuracy,
                "linear_accuracy": accuracy + 0.05 + 0.002 * generator.normal(),
                "online_accuracy": accuracy,
                "effective_rank": 30 + generator.normal(),
                "uniformity": -2.1,
                "alignment": 0.4,
                "dead_dimensions": 0.0,
            },
            "wall_time_s": 130.2 + seed,
            "resumed_at_step": resumed_at_step,
            "versions": {"python": "3.11.2", "torch": "2.14.0", "lightly": "1.6.0"},
            "hardware": {"cpu": "Imagined CPU", "cores": 2, "gpu": None, "platform": "Linux"},
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "command": command or [f"experiment={experiment}", f"bank={bank}", f"seed={seed}"],
        }
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def title_of(method: str, bank: str | None, size: int, in_batch: bool) -> str:
    if bank is None:
        return method
    return f"{BANKS[bank]}, M = {size}" + (" + in-batch negatives" if in_batch else "")


class Page(HTMLParser):
    """What a reader gets from a page: its tables by caption, its text, its tags."""

    VOID = frozenset({"meta", "br", "path", "use", "rect"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.tables: list[list[list[str]]] = []
        self.bold: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "strong" in self.open:
            self.bold.append(data)

    def rows(self, corner: str, *, number: int = 0) -> dict[str, dict[str, str]]:
        """The table with this first heading (the ``number``-th), by row and column heading."""
        (header, *lines) = [t for t in self.tables if t[0][0] == corner][number]
        found = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
        assert len(found) == len(lines)
        return found


def reported(root: Path, *folders: Path) -> tuple[Page, str]:
    """Runs the command; the page, and the Markdown."""
    out = root / "the report"
    main(["report", *map(str, folders or [root]), "--out", str(out)])
    return Page((out / "report.html").read_text()), (out / "report.md").read_text()


def metric(folders: list[Path], name: str) -> np.ndarray[Any, Any]:
    found = [json.loads((folder / "results.json").read_text())["metrics"] for folder in folders]
    return np.array([metrics[name] for metrics in found])


def cell(values: np.ndarray[Any, Any], decimals: int) -> str:
    return f"{np.mean(values):.{decimals}f} ± {np.std(values, ddof=1):.{decimals}f}"


def test_rows_are_means_and_deviations_over_the_seeds_of_one_configuration(tmp_path: Path) -> None:
    fifo = [training(tmp_path / "a", seed=seed) for seed in (1, 2, 3)]
    smc = [training(tmp_path / "b/deep/er", seed=seed, bank="smc_paper") for seed in (1, 2)]
    untrained = [
        training(tmp_path / "c", seed=seed, method="simclr", bank=None, epochs=0)
        for seed in (1, 2, 3)
    ]
    training(tmp_path / "d", seed=4, method="simclr", bank=None, epochs=0)  # of another seed
    page, text = reported(tmp_path)
    rows = page.rows("configuration")
    titles = [title_of("moco", bank, 256, False) for bank in ("fifo", "smc_paper")]
    ranked = {"untrained network": untrained, titles[0]: fifo, titles[1]: smc}
    accuracies = {
        title: metric(folders, "linear_accuracy").mean() for title, folders in ranked.items()
    }
    assert list(rows) == sorted(accuracies, key=lambda title: -accuracies[title])
    best = max(
        (folders for folders in ranked.values()),
        key=lambda folders: metric(folders, "knn_accuracy").mean(),
    )
    assert page.bold[1] == cell(100 * metric(best, "knn_accuracy"), 2)
    assert page.bold[0] == rows[next(iter(rows))]["linear %"]
    assert len(page.bold) == 3  # a column of accuracies each
    assert f"**{page.bold[0]}**" in text
    for folders, bank in ((fifo, "fifo"), (smc, "smc_paper")):
        row = rows[title_of("moco", bank, 256, False)]
        assert row["n"] == str(len(folders))
        assert row["linear %"] == cell(100 * metric(folders, "linear_accuracy"), 2)
        assert row["kNN %"] == cell(100 * metric(folders, "knn_accuracy"), 2)
        assert row["effective rank"] == cell(metric(folders, "effective_rank"), 1)
        assert row["linear %"] in text
    expected = 100 * metric(untrained, "knn_accuracy")
    assert rows["untrained network"]["kNN %"] == cell(expected, 2)
    assert rows["untrained network"]["n"] == "3"
    assert JPEG in page.text
    assert JPEG in text.replace("\\", "")


def test_the_figures_of_every_finished_run_are_there_to_compute_with(tmp_path: Path) -> None:
    folders = [training(tmp_path / "runs", seed=seed) for seed in (2, 1)]
    training(tmp_path / "runs", seed=3, finished=False)
    main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    (machine,) = json.loads((tmp_path / "out" / "runs.json").read_text())
    written = [json.loads((folder / "results.json").read_text()) for folder in reversed(folders)]
    assert machine["versions"] == written[0]["versions"]
    for record, results in zip(machine["runs"], written, strict=True):
        assert record.items() <= results.items()
        assert {"metrics", "commit", "command", "data", "seed"} <= record.keys()


def test_durations_are_of_runs_in_one_go_and_the_untrained_network_may_be_missing(
    tmp_path: Path,
) -> None:
    for seed, step in ((1, 0), (2, 0), (3, 9)):
        training(tmp_path, seed=seed, resumed_at_step=step)
    page, _ = reported(tmp_path)
    ((_, row),) = page.rows("configuration").items()
    assert row["n"] == "3"
    assert row["s a run"] == f"{np.mean([131.2, 132.2]):.0f}"
    assert "of 1 resumed run only since then" in page.text


def test_results_come_before_their_provenance(tmp_path: Path) -> None:
    training(tmp_path, seed=1)
    page, text = reported(tmp_path)
    assert text.index("linear %") < text.index("## Provenance") < text.index("## How to rerun")
    assert page.text.count(JPEG) == 2  # the section's caption, and the provenance


def test_the_untrained_network_of_an_experiment_of_many_trainings_is_there(tmp_path: Path) -> None:
    folders = [training(tmp_path / "trainings", seed=seed) for seed in (1, 2)]
    config = yaml.safe_load((folders[0] / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "method": None, "bank": None}))
    measured = {"knn_accuracy": [0.25, 0.35], "effective_rank": [9.0, 10.0]}
    results = {"seeds": [1, 2], "untrained": measured, "rows": {}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    row = reported(tmp_path)[0].rows("configuration")["untrained network"]
    assert (row["n"], row["linear %"], row["kNN %"]) == ("2", "—", "30.00 ± 7.07")


def test_banks_have_their_titles_in_figure_8(tmp_path: Path) -> None:
    for bank in ("fifo", "smc"):
        training(tmp_path, seed=1, bank=bank, curves=True)
    reported(tmp_path)
    svg = (tmp_path / "the report/figures/banks-1-figure-8.svg").read_text()
    assert ">FIFO</text>" in svg
    assert ">fifo</text>" not in svg


def test_options_that_change_no_result_do_not_part_runs(tmp_path: Path) -> None:
    training(tmp_path / "a", seed=1)
    training(tmp_path / "b", seed=2, trainer__threads=2, logger__name="wandb", data__root="/x")
    rows = reported(tmp_path)[0].rows("configuration")
    assert [row["n"] for row in rows.values()] == ["2"]


def test_other_data_experiments_and_scales_have_tables_of_their_own(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"data": "CIFAR-10: 50000 training images, 10000 test images"},
        {"experiment": "benchmark"},
        {"epochs": 8},
        {"backbone__width": 16},
        {"data__order": "class_correlated"},
    ]
    folders = [training(tmp_path / str(n), seed=n, **other) for n, other in enumerate(others)]
    page, _ = reported(tmp_path)
    accuracies = []
    tables = [table for table in page.tables if table[0][:2] == ["configuration", "n"]]
    for _, (_, n, accuracy, *_) in tables:
        assert n == "1"
        accuracies.append(accuracy)
    expected = [f"{100 * accuracy:.2f}" for accuracy in metric(folders, "linear_accuracy")]
    assert sorted(accuracies) == sorted(expected)


def test_rows_of_one_title_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for rate in (0.06, 0.12):
        training(tmp_path, seed=1, method="simclr", bank=None, learning_rate=rate)
    page, _ = reported(tmp_path)
    titles = [f"simclr (method.learning_rate {rate})" for rate in (0.06, 0.12)]
    assert set(page.rows("configuration")) == set(titles)
    differing = page.rows("configuration", number=1)
    assert {title: row["method.learning_rate"] for title, row in differing.items()} == {
        titles[0]: "0.06",
        titles[1]: "0.12",
    }
    assert len(page.tables[1][0]) == 2  # no option that is the same in both


def test_the_papers_numbers_stand_beside_its_own_methods_only(tmp_path: Path) -> None:
    for bank in BANKS:
        for size in (256, 4096):
            for in_batch in (False, True):
                training(tmp_path, seed=1, bank=bank, size=size, in_batch=in_batch)
    page, text = reported(tmp_path)
    beside = {name: row["paper, linear % *"] for name, row in page.rows("configuration").items()}
    assert {name: number for name, number in beside.items() if number} == {
        title_of("moco", "fifo", 256, False): "78.08",
        title_of("moco", "smc_paper", 256, False): "81.99",
    }
    for told in (
        "1000 epochs",
        "backbone.name small_cnn (paper: resnet18)",
        f"trainer.epochs {EPOCHS} (paper: 1000)",
    ):
        assert told in page.text
        assert told in text.replace("\\", "")


def test_the_benchmark_has_the_papers_table_and_other_reference_points(tmp_path: Path) -> None:
    for method, bank in (("simclr", None), ("byol", None), ("swav", None), ("moco", "fifo")):
        training(tmp_path, seed=1, experiment="benchmark", method=method, bank=bank, size=4096)
    for bank in ("smc", "smc_paper"):
        training(tmp_path, seed=1, experiment="benchmark", method="smc_gmje", bank=bank, title=bank)
    page, _ = reported(tmp_path)
    beside = {name: row["paper, linear % *"] for name, row in page.rows("configuration").items()}
    assert beside == {
        "byol": "79.04",
        "simclr": "81.50",
        "swav": "not printed",
        title_of("moco", "fifo", 4096, False): "79.02",
        "smc": "",  # smc_paper is closer to what was printed
        "smc_paper": "74.52",
    }
    elsewhere = page.rows("source")
    assert "BYOL 86.90" in elsewhere["lightly's CIFAR-10 benchmark"]["test accuracy in %"]
    assert elsewhere["lightly's CIFAR-10 benchmark"]["metric"] == "kNN %"
    assert "VICReg 92.07" in elsewhere["solo-learn"]["test accuracy in %"]


def test_other_data_has_no_number_of_the_paper_beside_it(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [
        {"experiment": "quickstart"},
        {"data__name": "mnist"},
        {"data__imbalance": 100.0},
        {"data__order": "class_correlated"},
        {"data__split": "validation"},
    ]
    for number, other in enumerate(others):
        training(tmp_path / str(number), seed=1, **other)
    page, _ = reported(tmp_path)
    tables = [table for table in page.tables if table[0][:2] == ["configuration", "n"]]
    assert len(tables) == len(others)
    assert not any("paper" in heading for table in tables for heading in table[0])


def test_curves_are_means_over_equal_parts_that_end_where_epochs_end() -> None:
    epoch = np.repeat(np.arange(3), 4)
    values = np.arange(12.0)
    long = binned(epoch, values, epochs=3)
    assert len(long) == 99
    assert np.isfinite(long[[32, 65, 98]]).all()  # each epoch's last line at its end
    assert long[np.isfinite(long)].tolist() == values.tolist()
    assert binned(np.repeat(np.arange(200), 2), np.arange(400.0), epochs=200).tolist() == [
        2 * number + 0.5 for number in range(200)
    ]
    gap = binned(np.array([0, 0, 1]), np.array([1.0, np.nan, np.nan]), epochs=2)
    assert np.isfinite(gap).sum() == 1


def test_unfinished_runs_are_listed_and_in_no_mean(tmp_path: Path) -> None:
    done = training(tmp_path / "a", seed=1)
    stopped = training(tmp_path / "b", seed=2, finished=False, curves=True)
    page, text = reported(tmp_path)
    (row,) = page.rows("configuration").values()
    assert row["n"] == "1"
    assert row["linear %"] == f"{100 * metric([done], 'linear_accuracy')[0]:.2f}"
    assert page.rows("folder")[str(stopped)]["epochs"] == f"{EPOCHS / 2} of {EPOCHS}"
    assert "unfinished-4.svg" in text
    page, _ = reported(tmp_path / "b")
    assert page.rows("folder").keys() == {str(stopped)}


def test_a_folder_that_gathers_trainings_is_none_and_wandbs_files_are_not_read(
    tmp_path: Path,
) -> None:
    inner = training(tmp_path / "outer", seed=1)
    (tmp_path / "outer/config.yaml").write_text("experiment: {name: quickstart}")
    (tmp_path / "outer/results.json").write_text('{"rows": {}}')
    for name, written in {"config.yaml": "method: null", "results.json": "{}"}.items():
        (tmp_path / "no_training").mkdir(exist_ok=True)
        (tmp_path / "no_training" / name).write_text(written)
    (inner / "wandb/run/files").mkdir(parents=True)
    (inner / "wandb/run/files/config.yaml").write_text("_wandb: {}")
    page, _ = reported(tmp_path, tmp_path, inner, tmp_path / "outer")
    assert page.rows("configuration")[title_of("moco", "fifo", 256, False)]["n"] == "1"
    assert "Left out" not in page.text


DAMAGED: list[tuple[str, bytes | None, str]] = [
    ("results.json", b'{"experiment": "banks", "metr', "damaged or cut off"),
    ("results.json", b"[]", "says nothing of experiment"),
    ("results.json", b'{"experiment": 3}', "experiment is 3"),
    ("results.json", b"\xff\xfe", "cannot read"),
    ("config.yaml", b"a: [", "is damaged"),
    ("config.yaml", b"seed: 1", "says nothing of experiment.name"),
    ("config.yaml", None, "cannot read"),
]


def test_a_damaged_run_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path, seed=1)
    damaged = {}
    for number, (file, content, told) in enumerate(DAMAGED):
        path = training(tmp_path / str(number), seed=2) / file
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        damaged[path] = told
    page, text = reported(tmp_path)
    (row,) = page.rows("configuration").values()
    assert row["n"] == "1"
    errors = capsys.readouterr().err
    for path, told in damaged.items():
        for place in (page.text, text.replace("\\", ""), errors):
            assert re.search(f"{path}.*{told}|{told} {path}", place)
        with pytest.raises(SystemExit) as stopped:
            main(["report", str(path.parent), "--out", str(tmp_path / "none")])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line
    assert not (tmp_path / "none").exists()


DAMAGED_CURVES: list[tuple[Callable[[list[str]], list[str]] | None, str]] = [
    (lambda lines: [*lines, "48,3"], "lines cut off and left out: 1"),
    (lambda lines: [*lines, "48,3,inf,,,"], "values of train/loss not finite and left out: 1"),
    (lambda lines: [*lines, "48,9,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,0,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,,1.0,,,"], "its epochs do not go up from 0 to 3"),
    (lambda lines: [*lines, "48,3,five,,,"], "is damaged: could not convert"),
    (lambda lines: [], "has no column epoch"),
    (None, "cannot read"),
]


def test_damaged_curves_are_told_and_the_result_stays(tmp_path: Path) -> None:
    told = {}
    for seed, (change, why) in enumerate(DAMAGED_CURVES):
        path = training(tmp_path, seed=seed, curves=True) / "metrics.csv"
        if change is None:
            path.unlink()
        else:
            path.write_text("\n".join(change(path.read_text().splitlines())))
        told[path] = why
    page, _ = reported(tmp_path)
    for path, why in told.items():
        assert re.search(f"{path}.*{why}|{why} {path}", page.text)
    (row,) = page.rows("configuration").values()
    assert row["n"] == str(len(DAMAGED_CURVES))


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    training(tmp_path / "a", seed=1)
    again = training(tmp_path / "b", seed=1)
    page, _ = reported(tmp_path)
    assert f"{again} repeats" in page.text
    assert page.rows("configuration")[title_of("moco", "fifo", 256, False)]["n"] == "1"


@pytest.mark.parametrize("folders", [[], ["nowhere"], ["empty"]], ids=str)
def test_nothing_to_report_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folders: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["report", *folders])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (folders or ["folder"])[0] in line
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    training(tmp_path / "runs", seed=1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SettingsError, match="cannot write the report to"):
        write_report([tmp_path / "runs"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_the_page_needs_nothing_else_and_its_ids_are_its_own(tmp_path: Path) -> None:
    training(tmp_path, seed=1, curves=True)
    training(tmp_path, seed=1, bank="smc", curves=True)
    training(tmp_path, seed=3, finished=False, curves=True)
    page, text = reported(tmp_path)
    tags = page.tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith(("#", "data:image/svg+xml;base64,"))
    whole = (tmp_path / "the report/report.html").read_text()
    assert not re.search(r"https?:|@import|url\((?!#)", whole)
    ids = [value for _, attributes in tags for name, value in attributes.items() if name == "id"]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', whole)
    assert targets
    assert set(targets) <= set(ids)
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 3
    assert all(picture["alt"] for picture in pictures)
    scopes = [attributes.get("scope") for tag, attributes in tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    places = {
        attributes["aria-labelledby"] for _, attributes in tags if "aria-labelledby" in attributes
    }
    assert places
    assert places <= set(ids)
    files = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(files) == 3
    for file in files:
        ElementTree.parse(tmp_path / "the report" / file)


def test_what_comes_from_files_is_shown_as_it_is_and_does_nothing(tmp_path: Path) -> None:
    title = '<script>alert(1)</script> | $\\frac "quoted" & `code` [x](http://e.vil) ]]>'
    command = ["experiment=banks", "note=it's <b> `here` ```", "line\nbreak"]
    training(tmp_path, seed=1, title=title, command=command, data=f"<i>{JPEG}", curves=True)
    page, text = reported(tmp_path)
    assert title in page.rows("configuration")
    assert not {"script", "i", "b"} & {tag for tag, _ in page.tags}
    assert """python -m harness experiment=banks 'note=it'"'"'s <b> `here` ```' """ in page.text
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert "````sh\npython -m harness" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if "linear" in line]
    row = next(line for line in lines if "quoted" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == first[0]


def test_every_command_is_there_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        training(tmp_path, seed=seed, command=["-m", "experiment=banks", "seed=1,2"])
    training(tmp_path, seed=1, bank="smc", command=["bank=smc"])
    _, text = reported(tmp_path)
    commands = [line for line in text.splitlines() if line.startswith("python -m harness")]
    assert commands == [
        "python -m harness -m experiment=banks seed=1,2",
        "python -m harness bank=smc",
    ]


def test_a_report_made_again_is_the_same_and_leaves_nothing_else(tmp_path: Path) -> None:
    training(tmp_path / "runs", seed=1, curves=True)
    reported(tmp_path, tmp_path / "runs")
    files = {p: p.read_bytes() for p in (tmp_path / "the report").rglob("*") if p.is_file()}
    reported(tmp_path, tmp_path / "runs")
    again = {p: p.read_bytes() for p in (tmp_path / "the report").rglob("*") if p.is_file()}
    assert again == files
    assert len(files) == 5


NAN = float("nan")
LOSSES = {
    "A": np.array([[4.0, NAN, 2.0, 1.0], [6.0, NAN, NAN, 2.0]]),
    "B": np.array([[3.0, 3.0, 3.0, 3.0]]),
}


def test_bank_curves_are_means_and_ranges_over_the_seeds_that_logged_them() -> None:
    both = {"train/loss": LOSSES["A"], "bank/ess_ratio": LOSSES["A"]}
    facets = {
        "M = 256": {"A": both, "B": {"train/loss": LOSSES["B"]}},
        "M = 4096": {"B": {"train/loss": LOSSES["B"]}},
    }
    figure = bank_curves(facets, epochs=2)
    figure.draw_without_rendering()
    first, ess, second, hidden = figure.axes
    a, b = first.lines
    assert a.get_xydata().tolist() == [[0.5, 5.0], [1.5, 2.0], [2.0, 1.5]]
    assert b.get_ydata().tolist() == [3.0] * 4
    band = first.collections[0].get_paths()[0].vertices
    assert {(0.5, 4.0), (0.5, 6.0), (2.0, 1.0), (2.0, 2.0)} <= {(x, y) for x, y in band.tolist()}
    assert b.get_color() == second.lines[0].get_color() != a.get_color()
    assert b.get_linestyle() == second.lines[0].get_linestyle() != a.get_linestyle()
    assert not hidden.get_visible()
    assert (ess.get_title(), ess.get_xlabel()) == ("ESS / pool size", "epoch")
    assert [axis.get_ylabel() for axis in (first, second)] == list(facets)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]


def test_run_curves_have_a_line_a_run_and_a_heading_on_the_first_panel_there_is() -> None:
    both = {"train/loss": LOSSES["A"], "eval/online_accuracy": LOSSES["A"]}
    rows = {"no $\\loss": {"eval/online_accuracy": LOSSES["B"]}, "A": both}
    figure = run_curves(rows, epochs=4)
    figure.draw_without_rendering()
    hidden, first, loss, online = figure.axes
    assert not hidden.get_visible()
    assert (first.get_title(), first.get_ylabel()) == ("online probe, %", "no $\\loss")
    assert first.lines[0].get_ydata().tolist() == [300.0] * 4  # in percent
    assert (loss.get_title(), loss.get_ylabel()) == ("loss", "A")
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[1.0, 4.0], [3.0, 2.0], [4.0, 1.0]],
        [[1.0, 6.0], [4.0, 2.0]],
    ]
    assert all(tick == int(tick) for axis in (first, loss) for tick in axis.get_xticks())
    assert first.get_ylim() == online.get_ylim()  # shared, so that rows can be compared
