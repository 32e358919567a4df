"""Each failure fails and each remedy helps; and the experiment that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from harness import experiments
from harness.experiments.failure_modes.demonstrations import (
    DEMONSTRATIONS,
    joint_smc_own_terms,
    particle_clones,
    trace_trap,
)
from harness.figures.failure_modes import Demonstration, end, failure_panels
from harness.settings import SettingsError
from harness.tracking import RunFolder
from tests.harness.commands import settings

SEED = 2


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Demonstration]]:
    """Every demonstration."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: demonstrate(SEED) for name, demonstrate in DEMONSTRATIONS.items()}
    torch.set_num_threads(threads)


def headlines(one: Demonstration) -> list[float]:
    """Where the first curves of the failure and of the remedy end."""
    return [end(next(iter(side.values()))) for side in (one.failure, one.remedy)]


def test_trace_trap_holds_at_every_batch(made: dict[str, Demonstration]) -> None:
    one = made["trace_trap"]
    (trapped,) = one.failure.values()
    assert max(trapped) < 1e-12
    for alive in one.remedy.values():  # the moving average from its first batch on
        assert min(alive) > 0.1


def test_a_learned_covariance_lets_all_shrink(made: dict[str, Demonstration]) -> None:
    one = made["log_det_cheat"]
    (norms,) = one.failure.values()
    assert all(after < before for before, after in pairwise(norms))
    failure, remedy = headlines(one)
    assert failure < 1e-3
    assert remedy == pytest.approx(norms[0], rel=0.1)


def test_dual_collapse_has_two_phases_and_a_moving_average_does_not_stop_it(
    made: dict[str, Demonstration],
) -> None:
    one = made["dual_collapse"]
    contexts, targets = (one.failure[f"{name}, symmetric"] for name in ("contexts", "targets"))
    half = next(step for step, share in enumerate(contexts) if share < 0.5)
    assert all(targets[step] < contexts[step] for step in range(1, half - 10))
    assert contexts[half // 2] > 0.8 > 0.7 > targets[half // 2]
    assert end(targets) < 0.2
    failure, remedy = headlines(one)
    assert failure < 1e-6
    assert 0.03 < remedy < 0.3
    assert end(one.remedy["contexts, EMA targets (App. E)"]) < 1e-6


def test_joint_entropy_makes_the_views_independent(made: dict[str, Demonstration]) -> None:
    one = made["entropy_drift"]
    failure, remedy = headlines(one)
    assert next(iter(one.failure.values()))[0] > 0.9
    assert abs(failure) < 0.02
    assert remedy > 0.99


def test_a_head_that_sees_the_target_claims_to_know_it(made: dict[str, Demonstration]) -> None:
    failure, remedy = headlines(made["identity_collapse"])
    assert failure < 0.02
    assert 0.03 < remedy < 0.06  # the noise is 0.05


def test_the_printed_guard_pulls_to_the_origin(made: dict[str, Demonstration]) -> None:
    one = made["printed_guard"]
    failure, remedy = headlines(one)
    start = next(iter(one.failure.values()))[0]
    assert failure < 2e-3 * start
    assert remedy == pytest.approx(start, rel=0.05)


def test_own_terms_leave_the_last_batch_alone(made: dict[str, Demonstration]) -> None:
    one = made["joint_smc_own_terms"]
    (counted,), (left_out,) = one.failure.values(), one.remedy.values()
    assert min(counted) > 0.85
    # A fair share is 64 in the pool of 320.
    assert sum(left_out) / len(left_out) == pytest.approx(0.2, abs=0.08)


def test_only_drawing_with_replacement_makes_clones(made: dict[str, Demonstration]) -> None:
    one = made["particle_clones"]
    (copied,), (kept,) = one.failure.values(), one.remedy.values()
    assert copied[0] == 1.0  # just filled
    assert max(copied[20:]) < 0.3
    assert min(kept) == 1.0


def test_demonstrations_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again = trace_trap(5), trace_trap(5)
    joint_smc_own_terms(5)
    particle_clones(5)
    assert torch.equal(before, torch.get_rng_state())
    assert first == again


def test_a_number_is_the_median_of_the_last_tenth() -> None:
    assert end([9.0] * 27 + [1.0, 5.0, 2.0]) == 2.0
    assert end([3.0]) == 3.0


def test_panels_show_every_curve_and_its_number() -> None:
    made = Demonstration(
        "a title", "a quantity", {"bad": [1.0, 0.25]}, {"good": [1.0, 2.0], "too": [1.0, 3.0]}, True
    )
    figure = failure_panels([made] * 5)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 5
    (key,) = figure.legends
    sides = zip(key.get_texts(), key.get_lines(), strict=True)
    colours = {text.get_text(): line.get_color() for text, line in sides}
    for axis in shown:
        assert [line.get_color() for line in axis.lines] == [
            colours["failure"],
            *[colours["remedy"]] * 2,
        ]
        assert axis.get_yscale() == "log"
        assert [line.get_ydata().tolist() for line in axis.lines] == [[1, 0.25], [1, 2], [1, 3]]
        labels = [text.get_text() for text in axis.get_legend().get_texts()]
        assert labels == ["bad: 0.25", "good: 2", "too: 3"]
        assert axis.get_legend().get_title().get_text() == "a title"


def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the experiment prints."""
    asked = settings("experiment=failure_modes", "logger=csv", f"seed={SEED}")
    experiments.run(asked, RunFolder(folder, asked))
    return capsys.readouterr().out


def test_the_experiment_leaves_numbers_and_figures_once(
    made: dict[str, Demonstration],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = {name: partial(lambda name, seed: made[name], name) for name in made}
    monkeypatch.setattr(experiments.failure_modes, "DEMONSTRATIONS", again)
    printed = run(tmp_path, capsys)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["seed"] == SEED
    assert {"versions", "hardware", "commit", "command", "wall_time_s"} <= set(results)
    assert list(results["demonstrations"]) == list(made)
    for name, one in made.items():
        found = results["demonstrations"][name]
        for side, curves, number in zip(
            ("failure", "remedy"), (one.failure, one.remedy), headlines(one), strict=True
        ):
            assert found[side].keys() == curves.keys()
            assert next(iter(found[side].values()))["end"] == number
            assert f"{number:.2g}" in printed
        picture = imread(tmp_path / "figures" / f"{name}.png")[..., :3]
        assert 0.02 < (picture < 0.95).any(axis=-1).mean() < 0.9
    assert (tmp_path / "figures" / "failure_modes.png").stat().st_size < 300_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    repeated = run(tmp_path, capsys)
    assert repeated.splitlines()[:-1] == printed.splitlines()[:-1]
    assert "Finished before" in repeated
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("option", ["method=simclr", "+bank=smc"])
def test_options_of_trainings_are_refused(option: str) -> None:
    with pytest.raises(SettingsError, match="are for benchmark and banks, not failure_modes"):
        settings("experiment=failure_modes", option)
