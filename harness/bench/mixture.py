"""``python -m harness bench mixture``: log-densities of many points, beside scikit-learn's.

``JointGaussianMixture.log_prob`` and ``GaussianMixture.score_samples`` of the same mixture with
full covariances, in float32, in turn in one process. What memory is: harness/bench/memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from sklearn.mixture import GaussianMixture
from torch import Generator

from gmje_plugin import JointGaussianMixture
from harness.bench import OneLineParser, count, finish
from harness.bench.comparison import Comparison

OURS, SKLEARN = "JointGaussianMixture", "scikit-learn's GaussianMixture"


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench mixture`` with the command line's arguments."""
    parser = OneLineParser("bench mixture", __doc__)
    parser.add_argument("--points", type=count, default=100_000, metavar="N")
    parser.add_argument("--dim", type=count, default=256, metavar="D", help="of both views")
    parser.add_argument("--components", type=count, default=50, metavar="K")
    parser.add_argument("--repeats", type=count, default=3, help="timings of each")
    options = parser.measurement(arguments)
    if options.dim < 2:
        parser.error("--dim: must be at least 2, a dimension a view")
    comparison = Comparison(SKLEARN, "of_sklearn", unit="s", form=".3g")
    sizes, device = (options.points, options.dim, options.components), torch.device(options.device)
    make = partial(make_steps, *sizes, device=device)
    rows = comparison.rows(make, rounds=options.repeats, warmup=1, device=device)
    title = f"{options.points} points, D = {options.dim}, K = {options.components}, "
    title += f"{device}, {options.threads} thread(s), {options.repeats} timings each"
    finish(rows, options, comparison.table(title, "log-density", rows))


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
