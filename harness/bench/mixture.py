"""``python -m harness bench mixture``: log-densities of many points, beside scikit-learn's.

``JointGaussianMixture.log_prob`` and ``GaussianMixture.score_samples`` of the same mixture with
full covariances, in float32, in turn in one process. What memory is: harness/bench/memory.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Generator

from gmje_plugin import JointGaussianMixture
from harness.bench import OneLineParser, count, in_turn, seconds_of, write
from harness.bench.memory import cpu_extra_memory, cuda_extra_memory, peak_extra_memory

OURS, SKLEARN = "JointGaussianMixture", "scikit-learn's GaussianMixture"


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench mixture`` with the command line's arguments."""
    parser = OneLineParser(prog="python -m harness bench mixture", description=__doc__)
    parser.add_argument("--points", type=count, default=100_000, metavar="N")
    parser.add_argument("--dim", type=count, default=256, metavar="D", help="of both views")
    parser.add_argument("--components", type=count, default=50, metavar="K")
    parser.add_argument("--repeats", type=count, default=3, help="timings of each")
    parser.add_common_options(threads=1, out=Path("outputs/bench/mixture.json"))
    options = parser.checked(arguments)
    if options.dim < 2:
        parser.error("--dim: must be at least 2, a dimension a view")
    rows = _measure(options)
    console = Console()
    console.print(_table(rows, options))
    write(rows, options)
    console.print(f"written to {options.out}", soft_wrap=True)


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):  # NumPy's products
        steps = make_steps(options.points, options.dim, options.components, device=device)
        seconds = in_turn(
            {name: partial(seconds_of, step, device) for name, step in steps.items()},
            rounds=options.repeats,
            warmup=1,
        )
    if device.type == "cuda":
        extra = {OURS: cuda_extra_memory(steps[OURS])}
    else:
        sizes = [options.points, options.dim, options.components, options.threads]
        extra = cpu_extra_memory("mixture", sizes)
    return [
        {
            "variant": name,
            "median_s": median(taken),
            "min_s": min(taken),
            "max_s": max(taken),
            "of_sklearn": median(taken) / median(seconds[SKLEARN]),
            "extra_memory_mib": extra[name] / 2**20 if name in extra else None,
        }
        for name, taken in seconds.items()
    ]


def make_steps(
    points: int, dim: int, components: int, *, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """The two, of one random mixture; scikit-learn's on the CPU."""
    generator = Generator().manual_seed(0)
    z = torch.randn(points, dim, generator=generator)
    factor = torch.randn(components, dim, dim, generator=generator).tril() / dim**0.5
    factor.diagonal(dim1=1, dim2=2).abs_().add_(0.5)
    weights = torch.full((components,), 1.0 / components)
    means = torch.randn(components, dim, generator=generator)
    ours = JointGaussianMixture(weights, means, split=dim // 2, scale_tril=factor).to(device)
    theirs = GaussianMixture(components)
    theirs.weights_, theirs.means_ = weights.numpy(), means.numpy()
    inverse = torch.linalg.solve_triangular(factor, torch.eye(dim), upper=False)
    theirs.precisions_cholesky_ = inverse.mT.contiguous().numpy()
    moved, array = z.to(device), z.numpy()
    return {
        OURS: lambda: ours.log_prob(moved),
        SKLEARN: lambda: torch.from_numpy(theirs.score_samples(array)),
    }


def _table(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Table:
    table = Table(
        title=f"{options.points} points, D = {options.dim}, K = {options.components}, "
        f"{options.device}, {options.threads} thread(s), {options.repeats} timings each",
        title_justify="left",
    )
    table.add_column("log-density", no_wrap=True)
    for heading in ("s (min to max)", "ratio", "extra MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        extra = row["extra_memory_mib"]
        table.add_row(
            row["variant"],
            f"{row['median_s']:.3g} ({row['min_s']:.3g} to {row['max_s']:.3g})",
            f"{row['of_sklearn']:.2f}",
            "?" if extra is None else f"{extra:.1f}",
        )
    return table


def _memory_process(task: str) -> None:
    points, dim, components, threads = json.loads(task)
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        steps = make_steps(points, dim, components, device=torch.device("cpu"))
        print(json.dumps({name: peak_extra_memory(step) for name, step in steps.items()}))


if __name__ == "__main__":
    _memory_process(sys.argv[1])
