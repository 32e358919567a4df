"""Each failure fails and each remedy helps; and the command that shows them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from harness import failure_figures
from harness.experiments.failure_modes.demonstrations import (
    DEMONSTRATIONS,
    Demonstration,
    dual_collapse,
    end,
    entropy_drift,
    identity_collapse,
    joint_smc_own_terms,
    log_det_cheat,
    particle_clones,
    printed_guard,
    trace_trap,
)
from harness.settings import SettingsError
from tests.harness.commands import harness, settings

SEED = 2


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_trace_trap_holds_at_every_batch() -> None:
    made = trace_trap(SEED)
    (trapped,) = made.failure.values()
    assert max(trapped) < 1e-12
    for alive in made.remedy.values():  # the moving average from its first batch on
        assert min(alive) > 0.1


def test_a_learned_covariance_lets_all_shrink() -> None:
    made = log_det_cheat(SEED)
    (norms,) = made.failure.values()
    assert all(after < before for before, after in pairwise(norms))
    failure, remedy = made.numbers
    assert failure < 1e-3
    assert remedy == pytest.approx(norms[0], rel=0.1)


def test_dual_collapse_has_two_phases_and_a_moving_average_does_not_stop_it() -> None:
    made = dual_collapse(SEED)
    contexts, targets = (made.failure[f"{name}, symmetric"] for name in ("contexts", "targets"))
    half = next(step for step, share in enumerate(contexts) if share < 0.5)
    assert all(targets[step] < contexts[step] for step in range(1, half - 10))
    assert contexts[half // 2] > 0.8 > 0.7 > targets[half // 2]
    assert end(targets) < 0.2
    failure, remedy = made.numbers
    assert failure < 1e-6
    assert 0.03 < remedy < 0.3
    assert end(made.remedy["contexts, moving average"]) < 1e-6


def test_joint_entropy_makes_the_views_independent() -> None:
    made = entropy_drift(SEED)
    failure, remedy = made.numbers
    assert next(iter(made.failure.values()))[0] > 0.9
    assert abs(failure) < 0.02
    assert remedy > 0.99


def test_a_head_that_sees_the_target_claims_to_know_it() -> None:
    failure, remedy = identity_collapse(SEED).numbers
    assert failure < 0.02
    assert 0.03 < remedy < 0.06  # the noise is 0.05


def test_the_printed_guard_pulls_to_the_origin() -> None:
    made = printed_guard(SEED)
    failure, remedy = made.numbers
    start = next(iter(made.failure.values()))[0]
    assert failure < 2e-3 * start
    assert remedy == pytest.approx(start, rel=0.05)


def test_own_terms_leave_the_last_batch_alone() -> None:
    made = joint_smc_own_terms(SEED)
    (counted,), (left_out,) = made.failure.values(), made.remedy.values()
    assert min(counted) > 0.85
    # A fair share is 64 in the pool of 320.
    assert sum(left_out) / len(left_out) == pytest.approx(0.2, abs=0.08)


def test_only_drawing_with_replacement_makes_clones() -> None:
    made = particle_clones(SEED)
    (copied,), (kept,) = made.failure.values(), made.remedy.values()
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
    figure = failure_figures.panels([made] * 5)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 5
    for axis in shown:
        assert axis.get_yscale() == "log"
        assert [line.get_ydata().tolist() for line in axis.lines] == [[1, 0.25], [1, 2], [1, 3]]
        labels = [text.get_text() for text in axis.get_legend().get_texts()]
        assert labels == ["bad: 0.25", "good: 2", "too: 3"]
        assert axis.get_legend().get_title().get_text() == "a title"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run's folder and what the command printed."""
    where = tmp_path_factory.mktemp("checkout")
    done = harness("experiment=failure_modes", "logger=csv", folder=where)
    assert (done.returncode, done.stderr) == (0, "")
    return where / "outputs" / "failure_modes" / "logger=csv", done.stdout


def test_the_command_leaves_numbers_and_figures(ran: tuple[Path, str]) -> None:
    results = json.loads((ran[0] / "results.json").read_text())
    assert list(results["demonstrations"]) == list(DEMONSTRATIONS)
    assert {"versions", "hardware", "commit", "command", "wall_time_s", "seed"} <= set(results)
    trap = results["demonstrations"]["trace_trap"]
    assert (
        trap["failure"]["covariance of the batch"]["end"] < 1e-12 < trap["remedy"]["learned"]["end"]
    )
    assert f"{trap['failure']['covariance of the batch']['end']:.2g}" in ran[1]
    assert max(map(len, ran[1].splitlines())) <= 100  # the folder's path, in pytest
    for name in ("failure_modes", *DEMONSTRATIONS):
        picture = imread(ran[0] / "figures" / f"{name}.png")[..., :3]
        assert 0.02 < (picture < 0.95).any(axis=-1).mean() < 0.9
    assert (ran[0] / "figures" / "failure_modes.png").stat().st_size < 300_000


def test_the_same_command_shows_it_again(ran: tuple[Path, str]) -> None:
    again = harness("experiment=failure_modes", "logger=csv", folder=ran[0].parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert "Finished before" in again.stdout
    assert again.stdout.strip().splitlines()[:-1] == ran[1].strip().splitlines()[:-1]


@pytest.mark.parametrize("option", ["method=simclr", "+bank=smc"])
def test_options_of_trainings_are_refused(option: str) -> None:
    with pytest.raises(SettingsError, match="are for benchmark and banks, not failure_modes"):
        settings("experiment=failure_modes", option)
