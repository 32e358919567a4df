import copy
import doctest
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Generator, Tensor, nn

from gmje_plugin import GrowingNeuralGas
from gmje_plugin.density import neural_gas
from tests.references.neural_gas import NeuralGas

STATE = ("_positions", "_errors", "_edge_ages", "_counters")


def rows(count: int = 200, *, dim: int = 3, seed: int = 0) -> Tensor:
    """Three blobs, in a random order."""
    generator = Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return 4.0 * labels[:, None] + noise


def reference_of(gas: GrowingNeuralGas, samples: Tensor, **options: Any) -> NeuralGas:
    """The reference after the same samples, from the same two nodes."""
    names = ("max_nodes", "max_age", "winner_rate", "neighbour_rate", "insert_every")
    names += ("split_decay", "error_decay")
    reference = NeuralGas(**{name: getattr(gas, name) for name in names})
    # The start is drawn; a gas that is shown one sample at winner rate 0 does not leave it.
    still = GrowingNeuralGas(
        gas.dim,
        gas.max_nodes,
        **{**options, "winner_rate": 0.0, "neighbour_rate": 0.0, "insert_every": 10**9},
    )
    for node in still.double().partial_fit(samples).nodes.numpy():
        reference.add(node, 0.0)
    for sample in samples.numpy():
        reference.follow(sample)
    return reference


def graph(gas: GrowingNeuralGas) -> tuple[np.ndarray, set[tuple[int, int, int]]]:
    """Places and errors in lexicographic order, and the edges with their ages in that order."""
    count = len(gas.nodes)
    table = np.column_stack([gas.nodes.double(), gas._errors[:count].double()])
    order = np.lexsort(table.T)
    rank = np.argsort(order)
    ages = gas._edge_ages
    edges = {
        (*sorted((int(rank[i]), int(rank[j]))), int(ages[i, j])) for i, j in gas.edges.tolist()
    }
    return table[order], edges


def reference_graph(reference: NeuralGas) -> tuple[np.ndarray, set[tuple[int, int, int]]]:
    names = list(reference.places)
    table = np.array([[*reference.places[name], reference.errors[name]] for name in names])
    order = np.lexsort(table.T)
    rank = {names[index]: position for position, index in enumerate(order)}
    edges = {(*sorted(rank[node] for node in edge), age) for edge, age in reference.ages.items()}
    return table[order], edges


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 1000),
    dim=st.integers(1, 4),
    max_nodes=st.integers(2, 15),
    max_age=st.integers(1, 20),
    insert_every=st.integers(1, 15),
    neighbour_rate=st.sampled_from([0.0, 0.006, 0.1]),
)
def test_against_the_reference(
    seed: int, dim: int, max_nodes: int, max_age: int, insert_every: int, neighbour_rate: float
) -> None:
    """Nodes, errors, edges and their ages, to 1e-12 in float64."""
    options: dict[str, Any] = {"max_age": max_age, "seed": seed}
    rates = {"neighbour_rate": neighbour_rate, "insert_every": insert_every}
    samples = rows(150, dim=dim, seed=seed)
    gas = GrowingNeuralGas(dim, max_nodes, **options, **rates).double().partial_fit(samples)
    table, edges = graph(gas)
    expected_table, expected_edges = reference_graph(reference_of(gas, samples, **options))
    np.testing.assert_allclose(table, expected_table, rtol=1e-12, atol=1e-12)
    assert edges == expected_edges


def test_float32_against_the_reference() -> None:
    samples = rows(600).float()
    options = {"max_age": 4}
    gas = GrowingNeuralGas(3, 12, insert_every=20, **options).partial_fit(samples)
    assert gas.nodes.dtype == torch.float32
    reference = reference_of(gas, samples.double(), **options)
    assert reference.removed > 0
    expected_table, expected_edges = reference_graph(reference)
    table, edges = graph(gas)
    np.testing.assert_allclose(table, expected_table, rtol=1e-5, atol=1e-5)
    assert edges == expected_edges


@pytest.fixture(scope="module")
def rings() -> tuple[GrowingNeuralGas, Tensor]:
    """A gas of 30 nodes after six passes over 500 samples of two disjoint rings."""
    generator = Generator().manual_seed(0)
    angle = 2.0 * math.pi * torch.rand(500, generator=generator)
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    noise = 0.02 * torch.randn(500, 2, generator=generator)
    centre = torch.where(torch.arange(500) % 2 == 0, -2.0, 2.0)
    samples = ring + noise + torch.stack([centre, torch.zeros(500)], dim=1)
    gas = GrowingNeuralGas(2, 30, insert_every=50, max_age=30)
    for _ in range(6):
        gas.partial_fit(samples[torch.randperm(500, generator=generator)])
    return gas, samples


def test_two_rings_become_two_cycles(rings: tuple[GrowingNeuralGas, Tensor]) -> None:
    gas, _ = rings
    nodes, edges = gas.nodes, gas.edges
    assert nodes.shape == (30, 2)
    assert edges.dtype == torch.int64
    assert (edges[:, 0] < edges[:, 1]).all()
    ones = np.ones(len(edges))
    adjacency = coo_array((ones, edges.numpy().T), shape=(30, 30))
    count, labels = connected_components(adjacency, directed=False)
    assert count == 2
    assert len(set(labels[(nodes[:, 0] > 0).numpy()])) == 1
    degrees = np.bincount(edges.flatten().numpy(), minlength=30)
    for end, centre in ((nodes[:, 0].argmin(), -2.0), (nodes[:, 0].argmax(), 2.0)):
        own = labels == labels[end]
        assert own.sum() >= 12
        assert degrees[own].min() >= 2  # closed: no node is an end
        # The first Betti number: one independent cycle at least.
        assert degrees[own].sum() / 2 - own.sum() + 1 >= 1
        radius = (nodes[own] - torch.tensor([centre, 0.0])).norm(dim=1)
        assert ((radius > 0.85) & (radius < 1.1)).all()


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
def test_the_mixture_against_numpy(rings: tuple[GrowingNeuralGas, Tensor], kind: str) -> None:
    gas, samples = copy.deepcopy(rings[0]).double(), rings[1].double()
    density = gas.to_mixture(samples, 1, covariance=kind)
    x, nodes = samples.numpy(), gas.nodes.numpy()
    winners = ((x[:, None] - nodes) ** 2).sum(axis=2).argmin(axis=1)
    won = np.unique(winners)
    weights = np.array([(winners == node).mean() for node in won])
    scatter = [(x[winners == node] - nodes[node]) for node in won]
    full = np.stack([part.T @ part / len(part) for part in scatter])
    full += 1e-6 * np.cov(x, rowvar=False, bias=True)
    diagonal = full.diagonal(axis1=1, axis2=2)
    expected = {"full": full, "diagonal": diagonal, "isotropic": diagonal.mean(axis=1)}[kind]
    np.testing.assert_allclose(density.weights.numpy(), weights, rtol=1e-12)
    np.testing.assert_allclose(density.means.numpy(), nodes[won], rtol=1e-12)
    np.testing.assert_allclose(density.covariances.numpy(), expected, rtol=1e-8, atol=1e-14)
    assert density.split == 1


def test_nodes_without_samples_are_no_components(rings: tuple[GrowingNeuralGas, Tensor]) -> None:
    gas, samples = rings
    right = samples[samples[:, 0] > 0]
    density = gas.to_mixture(right, 1)
    assert 0 < len(density.weights) < len(gas.nodes)
    assert density.log_prob(right).isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_mixture_far_from_the_origin(offset: float) -> None:
    # Whole numbers, so that float32 holds samples and nodes exactly at both offsets.
    samples = torch.cartesian_prod(*[torch.arange(16.0)] * 2) + offset
    gas = GrowingNeuralGas(2, 9, insert_every=10).partial_fit(samples)
    nodes = gas.nodes.double()
    winners = ((samples.double()[:, None] - nodes).square().sum(dim=2)).argmin(dim=1)
    counts = torch.bincount(winners, minlength=len(nodes))
    density = gas.to_mixture(samples, 1)
    torch.testing.assert_close(density.weights, counts[counts > 0] / len(samples))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mixture_of_views_that_nearly_agree(dtype: torch.dtype) -> None:
    """Views of 2 and 3 features; the third is noise of 3e-4 away from the sum of the first two."""
    generator = Generator().manual_seed(0)
    z = torch.randn(1000, 5, generator=generator, dtype=torch.float64)
    z[:, 4] = z[:, :2].sum(dim=1) + 3e-4 * z[:, 4]
    gas = GrowingNeuralGas(5, 3).to(dtype)
    # Nodes where the views agree exactly, so that no component is as wide as its node is far.
    gas._positions[:2] = torch.tensor([[-1.0, 0.0, 0.0, 0.0, -1.0], [1.0, 0.0, 0.0, 0.0, 1.0]])
    gas._counters[0] = 2
    conditional = gas.to_mixture(z.to(dtype), split=2).condition(z[:, :2].to(dtype))
    assert conditional.mean.shape == (1000, 3)
    deviation = conditional.component_distribution.stddev[..., 2]
    torch.testing.assert_close(deviation, torch.full_like(deviation, 3e-4), rtol=0.1, atol=0)


def test_an_old_edge_goes_and_the_node_it_leaves_alone_with_it() -> None:
    """By hand: the edge from 0 to 50 turns 6, and that from 50 to 0 was its only one."""
    gas = GrowingNeuralGas(1, 4, max_age=5).double()
    gas._positions[:3] = torch.tensor([[0.0], [50.0], [1.0]])
    gas._edge_ages[0, 1] = gas._edge_ages[1, 0] = 5
    gas._counters[0] = 3
    gas.partial_fit(torch.tensor([[0.2]]))
    assert gas.nodes.flatten().tolist() == pytest.approx([0.01, 1.0])
    assert gas.edges.tolist() == [[0, 1]]
    assert (gas._edge_ages > -1).sum() == 2
    # Its place is free again, and a new node does not inherit an error or an edge.
    assert gas._errors[2] == 0.0
    gas.insert_every = 1
    gas.partial_fit(torch.tensor([[0.3]]))
    assert gas.edges.tolist() == [[0, 2], [1, 2]]


def test_of_two_nodes_left_alone_at_once_both_go() -> None:
    """By hand: all edges of the winner turn 6; one of the lonely is the last node."""
    gas = GrowingNeuralGas(1, 5, max_age=5).double()
    gas._positions[:4] = torch.tensor([[0.0], [50.0], [1.0], [60.0]])
    gas._edge_ages[0, [1, 3]] = gas._edge_ages[[1, 3], 0] = 5
    gas._counters[0] = 4
    gas.partial_fit(torch.tensor([[0.2]]))
    assert gas.nodes.flatten().tolist() == pytest.approx([0.01, 1.0])
    assert gas.edges.tolist() == [[0, 1]]


def test_the_number_of_nodes() -> None:
    gas = GrowingNeuralGas(3, 6, max_age=1000, insert_every=10)
    assert gas.nodes.shape == (0, 3)
    assert gas.edges.shape == (0, 2)
    samples = rows(80)
    counts = [len(gas.partial_fit(part).nodes) for part in samples.split(10)]
    assert counts == [3, 4, 5, 6, 6, 6, 6, 6]


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 149), max_size=4), seed=st.integers(0, 100))
def test_parts_through_a_state_dict_are_one_go(cuts: list[int], seed: int) -> None:
    first, samples = rows(20, seed=seed), rows(150, seed=seed + 1)

    def gas() -> GrowingNeuralGas:
        return GrowingNeuralGas(3, 8, max_age=10, insert_every=7, seed=seed)

    whole = gas().partial_fit(first).partial_fit(samples)
    parent = nn.Sequential(gas())
    parent[0].partial_fit(first)
    for part in samples.tensor_split(sorted(set(cuts))):
        resumed = nn.Sequential(gas())
        resumed.load_state_dict(parent.state_dict())
        resumed[0].partial_fit(part)
        parent = resumed
    for name in STATE:
        assert torch.equal(getattr(parent[0], name), getattr(whole, name))


def test_the_start_is_two_different_samples_by_the_seed() -> None:
    samples = rows(30)
    samples[:25] = samples[0]  # mostly copies of one
    pairs = set()
    for seed in range(8):
        gas = GrowingNeuralGas(3, seed=seed, winner_rate=0.0, neighbour_rate=0.0).double()
        first, second = gas.partial_fit(samples).nodes
        assert not torch.equal(first, second)
        for node in (first, second):
            assert (samples == node).all(dim=1).any()
        pairs.add((float(first[0]), float(second[0])))
    assert len(pairs) > 1


def test_the_global_generator_and_the_samples_are_left_alone() -> None:
    torch.manual_seed(0)
    before, samples = torch.get_rng_state(), rows(50)
    kept = samples.clone()
    gas = GrowingNeuralGas(3, insert_every=5).partial_fit(samples.requires_grad_())
    gas.to_mixture(samples, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(samples, kept)
    gas.nodes.zero_()
    assert gas.nodes.abs().max() > 0.0


def test_a_perfect_fit_leaves_a_mixture_with_the_floor() -> None:
    """Nodes that sit on their samples have no covariance of their own."""
    samples = torch.tensor([[0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    gas = GrowingNeuralGas(2, 2, neighbour_rate=0.0).double().partial_fit(samples)
    density = gas.to_mixture(samples, 1)
    # The samples have variance 2 along (1, 1), and 1 stands for the none that they have across it.
    expected = 1e-6 * torch.tensor([[1.5, 0.5], [0.5, 1.5]], dtype=torch.float64).expand(2, 2, 2)
    torch.testing.assert_close(density.covariances, expected)
    torch.testing.assert_close(density.weights, torch.full((2,), 0.5, dtype=torch.float64))


def test_bad_samples() -> None:
    gas = GrowingNeuralGas(3)
    with pytest.raises(ValueError, match="samples must have 3 features"):
        gas.partial_fit(rows(dim=2))
    with pytest.raises(ValueError, match="at least one row"):
        gas.partial_fit(rows(0))
    for value in (torch.nan, torch.inf):
        samples = rows(10)
        samples[3, 1] = value
        with pytest.raises(ValueError, match="samples must be finite"):
            gas.partial_fit(samples)
    GrowingNeuralGas(3).partial_fit(torch.eye(3)[[0, 0, 1]])  # different, but not in every feature
    for equal in (rows(1), torch.ones(5, 3)):
        with pytest.raises(ValueError, match="must hold two different rows to start from"):
            gas.partial_fit(equal)
    with pytest.raises(RuntimeError, match=r"has no nodes: call partial_fit\(samples\) first"):
        gas.to_mixture(rows(), 1)
    gas.partial_fit(rows())
    with pytest.raises(ValueError, match="covariance must be one of diagonal, full, isotropic"):
        gas.to_mixture(rows(), 1, covariance="spherical")
    for split in (0, 3):
        with pytest.raises(ValueError, match="split"):
            gas.to_mixture(rows(), split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be an integer of at least 1"),
        ({"max_nodes": 1}, "max_nodes must be an integer of at least 2"),
        ({"max_age": 0}, "max_age must be an integer of at least 1"),
        ({"winner_rate": 1.1}, r"winner_rate must be a finite number in \[0.0, 1.0\]"),
        ({"neighbour_rate": -0.1}, r"neighbour_rate must be a finite number in \[0.0, 1.0\]"),
        ({"insert_every": 0}, "insert_every must be an integer of at least 1"),
        ({"split_decay": 2.0}, r"split_decay must be a finite number in \[0.0, 1.0\]"),
        ({"error_decay": float("nan")}, r"error_decay must be a finite number in \[0.0, 1.0\]"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GrowingNeuralGas(**{"dim": 2, **options})


def test_docstring_examples() -> None:
    result = doctest.testmod(neural_gas)
    assert result.attempted > 0
    assert result.failed == 0
