"""Mixtures of many points, components or dimensions: chunks, memory, products for solves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmje_plugin.density import JointGaussianMixture, mixture
from tests.density.mixtures import COMPONENTS, DIM, KINDS, SPLIT, parameters
from tests.density.points import close, points


@pytest.mark.parametrize("kind", ["diagonal", "isotropic"])
def test_diagonal_and_isotropic_are_never_expanded(kind: str) -> None:
    dim = 100_000  # of which two dense covariances would take 80 GB
    covariances = torch.full((2, dim), 2.0)
    density = JointGaussianMixture(
        torch.tensor([0.5, 0.5]),
        torch.stack([torch.zeros(dim), torch.ones(dim)]),
        covariances if kind == "diagonal" else covariances[:, 0],
        split=dim // 2,
    )
    z = density.sample((2,))
    z_c, z_t = z.tensor_split(2, dim=1)
    total = density.marginal("target").log_prob(z_t) + density.condition(z_c).log_prob(z_t)
    assert torch.isfinite(total + density.log_prob(z)).all()
    assert torch.isfinite(density.mutual_information(num_samples=4).value)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.lists(st.integers(1, 4), max_size=3),
    rows=st.integers(1, 5),
    shared=st.booleans(),
)
def test_chunks_of_points_are_all_at_once(
    kind: str, shape: list[int], rows: int, shared: bool
) -> None:
    weights, means, covariances = parameters(kind)
    z = points(*shape, DIM)
    results = []
    for elements in (2**22, rows * COMPONENTS * DIM):
        leaves = [leaf.clone().requires_grad_() for leaf in (weights, means, covariances, z)]
        w, m, c, x = leaves
        density = JointGaussianMixture(w, m, c[:1] if shared else c, SPLIT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mixture, "_CHUNK_ELEMENTS", elements)
            with torch.no_grad():
                plain = density.log_prob(x)
            log_prob = density.log_prob(x)
            results.append([plain, log_prob, *torch.autograd.grad(log_prob.sum(), leaves)])
    assert results[1][0].shape == tuple(shape)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_chunks_have_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "_CHUNK_ELEMENTS", 2 * COMPONENTS * DIM)
    density = JointGaussianMixture(*parameters("full"), SPLIT)
    z = points(5, DIM).requires_grad_()
    assert torch.autograd.gradgradcheck(density.log_prob, z)
    gradient = torch.autograd.grad(density.log_prob(z).sum(), z)[0]
    close(torch.func.grad(lambda z: density.log_prob(z).sum())(z), gradient)


MEMORY = """
import torch
from gmje_plugin import JointGaussianMixture
from harness.bench.memory import peak_extra_memory

torch.set_num_threads(1)
rows, count, dim = 8_000, 128, 64
weights, means = torch.full((count,), 1 / count), torch.zeros(count, dim)
density = JointGaussianMixture(weights, means, torch.ones(count, dim), split=1)
z = torch.zeros(rows, dim)
print(peak_extra_memory(lambda: density.log_prob(z)))
z.requires_grad_()
print(peak_extra_memory(lambda: density.log_prob(z).sum().backward()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's to tell")
def test_memory_does_not_grow_with_points_times_components_times_dimensions() -> None:
    told = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)},
    )
    without, with_gradient = (int(line) for line in told.stdout.split())
    # One difference of every point and mean is 262 MB; a chunk of them is 17 MB.
    assert without < 131e6
    assert with_gradient < 131e6


@pytest.mark.parametrize("dim", [7, 32, 75])
def test_many_points_take_products_instead_of_solves(dim: int) -> None:
    """As many points as dimensions or more; blocks of rows that end with the matrix, or do not."""
    generator = torch.Generator().manual_seed(dim)
    z = torch.randn(dim, dim, generator=generator, dtype=torch.float64).requires_grad_()
    factor = torch.randn(3, dim, dim, generator=generator, dtype=torch.float64).tril(-1) / dim
    factor = (factor + torch.eye(dim)).requires_grad_()
    means = torch.randn(3, dim, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    density = JointGaussianMixture(weights, means, split=dim // 2, scale_tril=factor)
    components = MultivariateNormal(means, scale_tril=factor)
    expected = MixtureSameFamily(Categorical(weights), components).log_prob(z)
    got = density.log_prob(z)
    torch.testing.assert_close(got, expected)
    variables = (z, means, factor)
    for ours, theirs in zip(
        torch.autograd.grad(got.sum(), variables),
        torch.autograd.grad(expected.sum(), variables),
        strict=True,
    ):
        torch.testing.assert_close(ours.tril() if ours.ndim == 3 else ours, theirs)
    few = density.log_prob(z[:2])  # by solves
    torch.testing.assert_close(few, expected[:2])
