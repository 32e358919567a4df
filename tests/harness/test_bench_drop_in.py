"""The file that ``bench drop_in`` adds to, and its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from harness import drop_in
from harness.bench.drop_in import main
from harness.drop_in import data
from harness.settings import SettingsError


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Nothing is trained; percents count up."""
    percents = count(1)
    monkeypatch.setattr(drop_in, "run", lambda *_, **__: [1.0])
    monkeypatch.setattr(data, "knn", lambda *_: next(percents) / 100)
    return percents


def asked(out: Path, *more: str) -> list[str]:
    small = ["--pipelines", "barlowtwins", "--networks", "small", "--optimizers", "sgd"]
    return [*small, "--seeds", "1", "--steps", "1", "--out", str(out), *more]


def test_what_differs_in_more_than_the_seed_is_in_a_table_of_its_own(
    tmp_path: Path, accuracies: Iterator[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """They were averaged into one."""
    main(asked(tmp_path / "rows.json", "--batch", "4"))
    main(asked(tmp_path / "rows.json", "--batch", "8"))
    capsys.readouterr()
    main(asked(tmp_path / "rows.json", "--batch", "8"))
    printed = capsys.readouterr().out
    first, second = printed.index("batch 4"), printed.index("batch 8")
    for percent, table in {"1.0": printed[first:second], "5.0": printed[second:]}.items():
        (line,) = (line for line in table.splitlines() if "untrained" in line)
        assert percent in line


def test_a_row_says_what_it_was_measured_on_and_the_file_is_left_where_nothing_is(
    tmp_path: Path, accuracies: Iterator[int]
) -> None:
    out = tmp_path / "rows.json"
    main(asked(out, "--batch", "4"))
    for row in json.loads(out.read_text())["rows"]:
        assert row["device"] == "cpu"
        assert {"commit", "hardware"} <= row.keys()
    before = out.read_bytes()
    main(asked(out, "--batch", "4", "--threads", "2"))
    assert out.read_bytes() == before
    assert next(accuracies) == 5  # a number a row, once


@pytest.mark.parametrize("text", ['{"rows": [{"pip', '{"rows": [{"variant": "lightly"}]}', "[]"])
def test_another_file_is_refused_and_left_alone(text: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    out.write_text(text)
    with pytest.raises(SettingsError, match="is not of this bench: move it or name another"):
        main(asked(out))
    assert out.read_text() == text
