"""The tables of a report: what their rows, means and columns are, and what stands beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from harness.__main__ import main
from tests.harness.reports import EPOCHS, FIFO, JPEG, metric, reported, training

ALGORITHM_2 = "MoCo v2, SMC (Algorithm 2), M = 256"


def test_rows_are_means_and_deviations_over_the_seeds_of_one_configuration(tmp_path: Path) -> None:
    fifo = [training(tmp_path / "a", seed=seed) for seed in (1, 2, 3)]
    smc = [training(tmp_path / "b/deep/er", "bank=smc_paper", seed=seed) for seed in (1, 2)]
    start = ["experiment=benchmark", "method=simclr", "trainer.epochs=0"]
    untrained = [training(tmp_path / "c", *start, seed=seed) for seed in (1, 2, 3)]
    training(tmp_path / "d", *start, seed=4)  # no seed of the others
    page, text = reported(tmp_path)
    rows = page.rows("configuration")
    ranked = {"untrained network": untrained, FIFO: fifo, ALGORITHM_2: smc}
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
    for folders, title in ((fifo, FIFO), (smc, ALGORITHM_2)):
        row = rows[title]
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
        training(tmp_path, f"bank={bank}", seed=1, curves=True)
    reported(tmp_path)
    svg = (tmp_path / "the report/figures/banks-1-figure-8.svg").read_text()
    assert ">FIFO</text>" in svg
    assert ">fifo</text>" not in svg


def test_options_that_change_no_result_do_not_part_runs(tmp_path: Path) -> None:
    training(tmp_path / "a", seed=1)
    training(
        tmp_path / "b",
        "trainer.threads=2",
        "trainer.probe_every=2",
        "logger=csv",
        "data.root=/x",
        seed=2,
    )
    rows = reported(tmp_path)[0].rows("configuration")
    assert [row["n"] for row in rows.values()] == ["2"]


def test_other_data_experiments_and_scales_have_tables_of_their_own(tmp_path: Path) -> None:
    folders = [
        training(tmp_path, seed=0),
        training(tmp_path, seed=1, data="CIFAR-10: 50000 training images, 10000 test images"),
        training(tmp_path, "experiment=benchmark", seed=2),
        training(tmp_path, "trainer.epochs=8", seed=3),
        training(tmp_path, "backbone.width=32", seed=4),
        training(tmp_path, "data.order=class_correlated", seed=5),
    ]
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
        asked = ["experiment=benchmark", "method=simclr", f"method.learning_rate={rate}"]
        training(tmp_path, *asked, seed=1)
    page, _ = reported(tmp_path)
    titles = [f"SimCLR (method.learning_rate {rate})" for rate in (0.06, 0.12)]
    assert set(page.rows("configuration")) == set(titles)
    differing = page.rows("configuration", number=1)
    assert {title: row["method.learning_rate"] for title, row in differing.items()} == {
        titles[0]: "0.06",
        titles[1]: "0.12",
    }
    assert len(page.tables[1][0]) == 2  # no option that is the same in both


def test_the_papers_numbers_stand_beside_its_own_methods_only(tmp_path: Path) -> None:
    for bank in ("fifo", "smc", "smc_paper"):
        for size in (256, 4096):
            for in_batch in ("false", "true"):
                asked = [f"bank={bank}", f"bank.size={size}"]
                training(tmp_path, *asked, f"method.in_batch_negatives={in_batch}", seed=1)
    page, text = reported(tmp_path)
    beside = {name: row["paper, linear % *"] for name, row in page.rows("configuration").items()}
    assert {name: number for name, number in beside.items() if number} == {
        FIFO: "78.08",
        ALGORITHM_2: "81.99",
    }
    for told in (
        "1000 epochs",
        "backbone.name small_cnn (paper: resnet18)",
        f"trainer.epochs {EPOCHS} (paper: 1000)",
    ):
        assert told in page.text
        assert told in text.replace("\\", "")


def test_the_benchmark_has_the_papers_table_and_other_reference_points(tmp_path: Path) -> None:
    smc_gmje = ["method=smc_gmje", "method.in_batch_negatives=false"]
    for words in (
        ["method=simclr"],
        ["method=byol"],
        ["method=swav"],
        ["method=moco", "bank=fifo"],
        [*smc_gmje, "bank=smc"],
        [*smc_gmje, "bank=smc_paper"],
    ):
        training(tmp_path, "experiment=benchmark", *words, seed=1)
    page, _ = reported(tmp_path)
    beside = {name: row["paper, linear % *"] for name, row in page.rows("configuration").items()}
    assert beside == {
        "BYOL": "79.04",
        "SimCLR": "81.50",
        "SwAV": "not printed",
        "MoCo v2, FIFO, M = 4096": "79.02",
        "SMC-GMJE, SMC, M = 4096": "",  # Algorithm 2 is closer to what was printed
        "SMC-GMJE, SMC (Algorithm 2), M = 4096": "74.52",
    }
    elsewhere = page.rows("source")
    assert "BYOL 86.90" in elsewhere["lightly's CIFAR-10 benchmark"]["test accuracy in %"]
    assert elsewhere["lightly's CIFAR-10 benchmark"]["metric"] == "kNN %"
    assert "VICReg 92.07" in elsewhere["solo-learn"]["test accuracy in %"]


def test_other_data_has_no_number_of_the_paper_beside_it(tmp_path: Path) -> None:
    others = [
        ["experiment=quickstart", "data=cifar10"],
        ["data=mnist"],
        ["data.imbalance=100"],
        ["data.order=class_correlated"],
        ["data.split=validation"],
    ]
    for other in others:
        training(tmp_path, *other, seed=1)
    page, _ = reported(tmp_path)
    tables = [table for table in page.tables if table[0][:2] == ["configuration", "n"]]
    assert len(tables) == len(others)
    assert not any("paper" in heading for table in tables for heading in table[0])


def cell(values: np.ndarray, decimals: int) -> str:
    return f"{np.mean(values):.{decimals}f} ± {np.std(values, ddof=1):.{decimals}f}"
