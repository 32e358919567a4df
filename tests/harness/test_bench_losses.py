"""The bench of costs on tiny sizes: what it measures and how it fits the slopes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gmje_plugin import GrowingNeuralGas
from harness import bench
from harness.bench import losses
from harness.bench.losses import COSTS, Cost
from tests.harness.commands import measured

CPU = torch.device("cpu")


def test_losses_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (16, 32, 64, 256)
    small = {name: replace(cost, sizes=sizes) for name, cost in COSTS.items()}
    monkeypatch.setattr(losses, "COSTS", small)
    found = measured("losses", "--repeats", "2", folder=tmp_path)
    printed = capsys.readouterr().out
    assert [(row["cost"], row["size"]) for row in found["rows"]] == [
        (name, size) for name in COSTS for size in sizes
    ]
    for row in found["rows"]:
        assert row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert f"{row['over']} = {row['size']}" in printed
    for name in COSTS:
        slopes = {row["slope"] for row in found["rows"] if row["cost"] == name}
        assert len(slopes) == 1
        assert f"{slopes.pop():.2f}" in printed
    assert found["repeats"] == 2
    assert torch.__version__.startswith(found["versions"]["torch"])


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_the_slope_is_the_power_of_the_three_largest_sizes(power: int) -> None:
    def prepare(size: int, device: torch.device) -> losses.Measurement:
        return lambda: 1.0 if size == 10 else 1e-3 * size**power

    rows = losses.measure({"it": Cost("N", (10, 20, 40, 160), prepare)}, repeats=2, device=CPU)
    assert [row["slope"] for row in rows] == pytest.approx([power] * 4, abs=1e-9)


def test_a_gas_is_full_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = []
    original = GrowingNeuralGas.partial_fit

    def counted(gas: GrowingNeuralGas, samples: torch.Tensor) -> GrowingNeuralGas:
        original(gas, samples)
        nodes.append((len(samples), len(gas.nodes)))
        return gas

    monkeypatch.setattr(GrowingNeuralGas, "partial_fit", counted)
    COSTS["neural gas, a sample"].prepare(60, CPU)()
    assert nodes == [(60, 60), (losses._GAS_SAMPLES, 60)]


def test_an_em_step_leaves_the_start_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def fit(*args: object, max_steps: int, **options: object) -> None:
        nonlocal now
        now += 100.0 + 2.0 * max_steps  # the start, and the steps

    monkeypatch.setattr(losses.JointGaussianMixture, "fit", fit)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    assert COSTS["EM, a step"].prepare(32, CPU)() == pytest.approx(2.0)
