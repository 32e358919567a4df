"""The benches on tiny sizes: what they measure, not how fast it is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from harness import bench
from harness.bench import bank, loops, memory, mixture, step
from harness.views import Views
from tests.harness.commands import measured

CPU = torch.device("cpu")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which Linux has"
)


def test_bank_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--sizes", "64", "--batch-sizes", "16", "--dim", "8", "--repeats", "3"]
    found = measured("bank", *sizes, folder=tmp_path)
    printed = capsys.readouterr().out
    assert {row["variant"] for row in found["rows"]} == set(bank.VARIANTS)
    for row in found["rows"]:
        assert row["variant"] in printed
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert (row["size"], row["batch_size"]) == (64, 16)
        assert row["extra_memory_mib"] is None or row["extra_memory_mib"] >= 0
    lightly = next(row for row in found["rows"] if row["variant"] == bank.LIGHTLY)
    assert lightly["of_lightly"] == 1.0
    assert found["dim"] == 8
    assert torch.__version__.startswith(found["versions"]["torch"])


@pytest.mark.parametrize("name", list(bank.CRITERIA))
def test_banks_are_full_and_every_step_updates_them(name: str) -> None:
    seen = []
    original = bank.CRITERIA[name]

    def keep(size: bank.Size) -> torch.nn.Module:
        seen.append(original(size))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bank.CRITERIA, name, keep)
        make = bank.make_steps((64, 8), batch_size=16, device=CPU)[name]
    memory = seen[0].memory_bank
    assert getattr(memory, "count", 64) == 64
    before = memory.bank.clone()
    make()
    assert not torch.equal(before, memory.bank)


def allocating() -> dict[str, memory.Step]:
    # 64 MiB and 32 MiB are held while 48 MiB more are made; all are given back after.
    return {"it": lambda: (torch.ones(2**24), torch.ones(2**23), torch.ones(3 * 2**22))[:0]}


@needs_proc
def test_peak_memory_is_what_a_step_allocates_at_once() -> None:
    found = memory.extra_memory(allocating, device=CPU)
    assert found == {"it": pytest.approx(144.0, abs=4.0)}


@needs_proc
def test_memory_of_lightlys_step_is_its_logits_and_its_copy_of_the_bank() -> None:
    # The (B, M) similarities, the (B, M + 1) logits and these over the temperature, and the bank.
    size, batch_size = (16384, 16), 64
    make = partial(bank.make_steps, size, batch_size=batch_size, device=CPU)
    found = memory.extra_memory(make, device=CPU)
    assert set(found) == set(bank.VARIANTS)
    matrix = 4 * size[0] * batch_size / 2**20
    expected = 3 * matrix + 4 * size[0] * size[1] / 2**20
    assert found[bank.LIGHTLY] == pytest.approx(expected, rel=0.2)
    assert found[bank.PRODUCTS] == pytest.approx(matrix, rel=0.2)


def test_mixture_compares_one_density(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = mixture.make_steps(60, 40, 3, device=CPU)
    ours, theirs = steps[mixture.OURS](), steps[mixture.SKLEARN]()
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-4)
    sizes = ["--points", "60", "--dim", "4", "--components", "2", "--repeats", "1"]
    rows = measured("mixture", *sizes, folder=tmp_path)["rows"]
    assert [row["variant"] for row in rows] == [mixture.OURS, mixture.SKLEARN]
    assert rows[1]["of_sklearn"] == 1.0
    assert mixture.OURS in capsys.readouterr().out


BATCH, STEPS, ROUNDS = 8, 3, 2


@pytest.fixture(scope="module")
def steps_measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``bench step`` writes, and how often it made views of how many images."""
    numbers = ["--batch", str(BATCH), "--warmup", "1", "--steps", str(STEPS)]
    numbers += ["--rounds", str(ROUNDS), "--workers", "2", "--threads", "1"]
    made: list[int] = []
    original = Views.__call__

    def counted(views: Views, images: Any, indices: Any, **asked: int) -> Any:
        made.append(len(images))
        return original(views, images, indices, **asked)

    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Views, "__call__", counted)
        found = measured("step", "--backbones", "cifar_cnn", *numbers, folder=folder)
    return {**found, "views_made": made}


def test_step_writes_every_variant_once(steps_measured: dict[str, Any]) -> None:
    rows = steps_measured["rows"]
    networks = [(row["variant"], row["precision"]) for row in rows]
    loops_compared = (step.WHOLE, step.TRAINER, step.LIGHTLY)
    assert networks[:3] == [(name, "32-true") for name in loops_compared]
    assert networks[3:] == [(step.RESIDENT, "32-true"), (step.RESIDENT, "bf16-mixed")]
    assert not any(row["compiled"] for row in rows)
    # lightly's two workers hand in two batches at a time.
    assert [row["steps"] for row in rows] == [3, 3, 4, 3, 3]
    assert steps_measured["workers"] == 2
    assert torch.__version__.startswith(steps_measured["versions"]["torch"])


def test_ratios_of_steps_are_those_of_their_times(steps_measured: dict[str, Any]) -> None:
    rows = steps_measured["rows"]
    lightly, ready = (
        next(row["median_ms"] for row in rows if row["variant"] == name)
        for name in (step.LIGHTLY, step.RESIDENT)
    )
    for row in rows:
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["images_per_second"] == pytest.approx(1e3 * BATCH / row["median_ms"])
        assert row["of_lightly"] == pytest.approx(lightly / row["median_ms"])
        assert row["of_ready_batch"] == pytest.approx(ready / row["median_ms"])


def test_views_are_made_in_whole_steps_alone(steps_measured: dict[str, Any]) -> None:
    whole_steps = 2 * ROUNDS * (1 + STEPS)  # in the plain loop and in the Trainer
    ready_batches = 2  # one for each way in which the network runs
    assert steps_measured["views_made"] == [BATCH] * (whole_steps + ready_batches)


def test_step_prints_the_loops_and_the_networks(
    steps_measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = steps_measured["rows"]
    options = argparse.Namespace(**steps_measured)
    console = Console(width=80)
    console.print(step._loops_table(rows, options), step._network_table(rows))
    printed = capsys.readouterr().out
    assert all(row["variant"] in printed for row in rows)
    assert printed.count("bf16-mixed") == 1
    assert "cifar_cnn, simclr, B = 8, cpu, 32-true, 1 thread(s), 2 worker(s)" in printed
    speed = f"{rows[0]['images_per_second']:.{0 if rows[0]['images_per_second'] >= 100 else 1}f} ("
    assert speed in printed


def test_the_time_of_a_step_leaves_the_warm_up_out() -> None:
    now = 0.0
    last = []

    def clock() -> float:
        return now

    def loop(step_made: Callable[[], bool]) -> None:
        nonlocal now
        for taken in (100.0, 10.0, 1.0, 2.0, 6.0):
            now += taken
            last.append(step_made())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.time, "perf_counter", clock)
        assert loops.seconds_a_step(loop, warmup=2, steps=3) == 3.0
    assert last == [False] * 4 + [True]


def test_pictures_are_the_images() -> None:
    images = loops.random_images().train.select(torch.arange(4))
    pictures = loops._Pictures(images)
    pictures.transform = lambda picture: picture
    picture, label = pictures[3]
    assert (picture.mode, picture.size, label) == ("RGB", (32, 32), 3)
    assert (np.asarray(picture).transpose(2, 0, 1) == images.images[3].numpy()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tank"], "invalid choice: 'tank'"),
        (["bank", "--sizes", "0"], "--sizes: must be a positive whole number, got '0'"),
        (["bank", "--dim", "many"], "--dim: must be a positive whole number, got 'many'"),
        (["bank", "--fast"], "unrecognized arguments: --fast"),
        ([], "the following arguments are required: what"),
        (["losses", "--repeats", "0"], "--repeats: must be a positive whole number, got '0'"),
        (["step", "--batch", "1"], "--batch: must be from 2 to 50000, got 1"),
        (["step", "--batch", "50001"], "--batch: must be from 2 to 50000, got 50001"),
        (["step", "--steps", "0"], "--steps: must be a positive whole number, got '0'"),
        (["step", "--precision", "16"], "--precision: invalid choice: '16'"),
        (["step", "--backbones", "vgg"], "--backbones: invalid choice: 'vgg'"),
        (["step", "--out", "."], "--out: cannot write ."),
        (["step", "--out", f"{__file__}/x.json"], f"--out: cannot make {__file__}: File exists"),
        pytest.param(
            ["step", "--device", "cuda"],
            "--device cuda: torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
