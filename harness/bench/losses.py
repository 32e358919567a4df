"""``python -m harness bench losses``: how the costs of losses and densities grow.

The dual loss (exact, and with 256 random Fourier features) and HSIC over the batch size B, forward
and backward; growing neural gas over the number of nodes K, all of them there, a sample; a step of
expectation maximisation over the number of samples N. All take turns in one process, size by size.

The slope is that of the logarithm of the median time over the logarithm of the size, fitted to the
three largest sizes: 1 is linear, 2 quadratic, 3 cubic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import linear_regression, median
from typing import Any

import torch
from rich.console import Console
from torch import Generator, Tensor, nn

from gmje_plugin import GJEDualLoss, GrowingNeuralGas, HSICLoss, JointGaussianMixture
from harness.bench import OneLineParser, count, finish, in_turn, interval, seconds_of, table, timing

DIM = 64  # features of a view
_GAS_SAMPLES = 1000  # timed together, as a call copies the K x K ages of edges
_EM_DIM, _EM_COMPONENTS, _EM_STEPS = 8, 10, 5

Measurement = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Cost:
    """What is measured over what.

    Attributes:
        over: The letter of the size.
        sizes: Increasing, at least two.
        prepare: From a size and a device to a measurement.
    """

    over: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, torch.device], Measurement]


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench losses`` with the command line's arguments."""
    parser = OneLineParser("bench losses", __doc__)
    parser.add_argument("--repeats", type=count, default=5, help="timings of each size")
    options = parser.measurement(arguments)
    with Console().status("all costs in turn"):
        rows = measure(COSTS, repeats=options.repeats, device=torch.device(options.device))
    title = f"{options.device}, {options.threads} thread(s), {options.repeats} timings each"
    made = table(title, "cost", "size", "ms (min to max)", "slope")
    for row in rows:
        largest = row["size"] == COSTS[row["cost"]].sizes[-1]
        cells = (row["cost"], f"{row['over']} = {row['size']}", interval(row))
        made.add_row(*cells, f"{row['slope']:.2f}" if largest else "", end_section=largest)
    finish(rows, options, made)


def measure(
    costs: Mapping[str, Cost], *, repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    """One line of results a cost and size; a cost's lines share its slope."""
    measurements = {
        (name, size): cost.prepare(size, device)
        for name, cost in costs.items()
        for size in cost.sizes
    }
    seconds = in_turn(measurements, rounds=repeats, warmup=1)
    medians = {key: median(taken) for key, taken in seconds.items()}
    return [
        {
            "cost": name,
            "over": cost.over,
            "size": size,
            **timing(seconds[name, size]),
            "slope": slope({each: medians[name, each] for each in cost.sizes[-3:]}),
        }
        for name, cost in costs.items()
        for size in cost.sizes
    ]


def slope(times: Mapping[int, float]) -> float:
    """The power of the size with which the time grows, by least squares of the logarithms."""
    return linear_regression(
        [math.log(size) for size in times], [math.log(taken) for taken in times.values()]
    ).slope


def _loss(make: Callable[[], nn.Module], size: int, device: torch.device) -> Measurement:
    """Forward and backward pass of a batch of ``size`` pairs, to both views."""
    criterion = make()
    z = _normal(2, size, DIM).to(device).requires_grad_()
    return partial(seconds_of, lambda: criterion(*z).backward())


def _gas(size: int, device: torch.device) -> Measurement:
    """A sample of a gas of ``size`` nodes; it computes on the CPU."""
    del device
    samples = _normal(size + _GAS_SAMPLES, 2 * DIM)
    # A node a sample, and no edge dies: after these samples all nodes are there, and stay.
    gas = GrowingNeuralGas(2 * DIM, size, insert_every=1, max_age=2**31)
    gas.partial_fit(samples[:size])

    return lambda: seconds_of(lambda: gas.partial_fit(samples[size:])) / _GAS_SAMPLES


def _em(size: int, device: torch.device) -> Measurement:
    """A step of full-covariance EM on ``size`` samples: what more steps take more."""
    z_c, z_t = _normal(2, size, _EM_DIM).to(device)

    def fit(steps: int) -> JointGaussianMixture:
        generator = Generator().manual_seed(0)
        return JointGaussianMixture.fit(
            z_c, z_t, _EM_COMPONENTS, max_steps=steps, tolerance=0.0, generator=generator
        )

    def seconds() -> float:
        long, short = (seconds_of(partial(fit, n)) for n in (1 + _EM_STEPS, 1))
        return (long - short) / _EM_STEPS

    return seconds


COSTS = {
    "dual, exact": Cost("B", (256, 512, 1024, 1536), partial(_loss, GJEDualLoss)),
    "dual, 256 features": Cost(
        "B", (512, 2048, 8192, 32768), partial(_loss, partial(GJEDualLoss, num_features=256))
    ),
    "HSIC": Cost("B", (256, 512, 1024, 2048), partial(_loss, HSICLoss)),
    "neural gas, a sample": Cost("K", (128, 512, 1024, 2048), _gas),
    "EM, a step": Cost("N", (2048, 8192, 32768, 131072), _em),
}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(0))
