"""A growing graph of prototypes that finds the number and places of a mixture's components."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from gmje_plugin.density.covariance import KINDS
from gmje_plugin.density.fitting import (
    assign_to_nearest,
    covariance_floor,
    covariances_around,
    ordinary_tensors,
)
from gmje_plugin.density.mixture import JointGaussianMixture
from gmje_plugin.resampling import multinomial
from gmje_plugin.validation import check_choice, check_count, check_embeddings, check_number

_NO_EDGE = -1
# Share of the samples' covariance added to the components', as in a mixture's fit.
_COVARIANCE_FLOOR = 1e-6


class GrowingNeuralGas(nn.Module):
    """Growing neural gas (Fritzke 1994; Huang 2026, Sec. 4.5, Algorithm 1).

    A graph of prototypes that starts with two nodes and follows the samples one by one: the nearest
    node and its neighbours move towards the sample (Eq. 24-25), the two nearest are joined by an
    edge, edges that are not renewed die, and every ``insert_every`` samples a node is put where the
    accumulated error is largest (Eq. 26). The nodes become the means of a mixture with
    ``to_mixture``, so the number of components need not be known.

    A sample costs O(K dim). The samples are taken in turn, vectorised over the nodes, on the CPU
    wherever they are; one with a NaN or infinite entry is an error. The state (nodes, errors, ages
    of edges, counters) is in ``state_dict``: after the first call, which draws the first nodes from
    its samples, training in parts is training in one go.

    Attributes:
        dim: Features of a sample: those of context and target together for joint embeddings.
        max_nodes: Largest number of nodes, at least 2. Default: 50.
        max_age: Age in visits of its winner beyond which an edge is removed. Default: 50.
        winner_rate: Share of the way to the sample that its nearest node moves. Default: 0.05.
        neighbour_rate: The same for the neighbours of the nearest. Default: 0.006.
        insert_every: Number of samples between insertions. Default: 100.
        split_decay: Factor on the errors of the two nodes that a new one comes between.
            Default: 0.5.
        error_decay: Factor on all errors after each sample. Default: 0.995.
        seed: Seed of the choice of the two samples at which the first nodes start.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> import torch
        >>> from gmje_plugin import GrowingNeuralGas
        >>> z = torch.randn(1000, 4)
        >>> gas = GrowingNeuralGas(4, max_nodes=20).partial_fit(z)
        >>> density = gas.to_mixture(z, split=2)
        >>> density.condition(z[:8, :2]).mean.shape
        torch.Size([8, 2])
    """

    _positions: Tensor
    _errors: Tensor
    _edge_ages: Tensor
    _counters: Tensor

    @ordinary_tensors()
    def __init__(
        self,
        dim: int,
        max_nodes: int = 50,
        *,
        max_age: int = 50,
        winner_rate: float = 0.05,
        neighbour_rate: float = 0.006,
        insert_every: int = 100,
        split_decay: float = 0.5,
        error_decay: float = 0.995,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        self.max_nodes = check_count("max_nodes", max_nodes, low=2)
        self.max_age = check_count("max_age", max_age)
        self.winner_rate = check_number("winner_rate", winner_rate, low=0.0, high=1.0)
        self.neighbour_rate = check_number("neighbour_rate", neighbour_rate, low=0.0, high=1.0)
        self.insert_every = check_count("insert_every", insert_every)
        self.split_decay = check_number("split_decay", split_decay, low=0.0, high=1.0)
        self.error_decay = check_number("error_decay", error_decay, low=0.0, high=1.0)
        self.seed = check_count("seed", seed, low=0)
        # Room for every node, of which the first ones are used: the state has one shape for ever.
        self.register_buffer("_positions", torch.zeros(max_nodes, dim))
        self.register_buffer("_errors", torch.zeros(max_nodes))
        ages = torch.full((max_nodes, max_nodes), _NO_EDGE, dtype=torch.int64)
        self.register_buffer("_edge_ages", ages)
        self.register_buffer("_counters", torch.zeros(2, dtype=torch.int64))  # nodes, samples

    @property
    def nodes(self) -> Tensor:  # shape: (K, dim)
        """The nodes' places, a copy."""
        return self._positions[: int(self._counters[0])].clone()

    @property
    def edges(self) -> Tensor:  # shape: (E, 2)
        """Pairs of joined nodes, as indices into ``nodes``, the smaller first."""
        return torch.nonzero((self._edge_ages > _NO_EDGE).triu(1))

    @torch.no_grad()
    def partial_fit(
        self,
        samples: Tensor,  # shape: (N, dim)
    ) -> GrowingNeuralGas:
        """Follows the samples once, in the order given; shuffle them and call again for more.

        Args:
            samples: Samples, shape (N, dim), cast to the module's dtype; the first call needs two
                different ones.

        Returns:
            This object.

        Raises:
            ValueError: If the shape does not fit, a value is not finite, or the first samples are
                all equal.
        """
        samples = self._checked(samples)
        if self._counters[0] == 0:
            self._start(samples)
        graph = _Graph(self)
        for sample in samples.cpu():
            graph.follow(sample)
        graph.write()
        return self

    @ordinary_tensors()
    @torch.no_grad()
    def to_mixture(
        self,
        samples: Tensor,  # shape: (N, dim)
        split: int,
        *,
        covariance: str = "full",
    ) -> JointGaussianMixture:
        """A mixture with the nodes that win samples as its means.

        Args:
            samples: Joint embeddings, shape (N, dim), each of which goes to its nearest node.
            split: Number of context dimensions.
            covariance: "full", "diagonal" or "isotropic".

        Returns:
            The mixture. Weights are the fractions of samples won, covariances those of the samples
            won around the node, plus 1e-6 of that of all samples, as in the fit of a mixture.

        Raises:
            RuntimeError: If no samples have been followed.
            ValueError: If the shape or an option does not fit, or a value is not finite.
        """
        check_choice("covariance", covariance, tuple(KINDS))
        samples = self._checked(samples)
        nodes = self.nodes
        if len(nodes) == 0:
            raise RuntimeError("GrowingNeuralGas has no nodes: call partial_fit(samples) first.")
        # In float64 but for the distances, as the fit of a mixture is.
        z, responsibilities = samples.double(), assign_to_nearest(samples, nodes).double()
        counts = responsibilities.sum(dim=0)
        won = counts > 0
        means, columns = nodes[won].double(), (responsibilities / counts).mT[won]
        floor = covariance_floor(z, _COVARIANCE_FLOOR, covariance, samples.dtype)
        covariances = covariances_around(means, z, columns, covariance, floor)
        mixture = JointGaussianMixture(counts[won] / len(z), means, covariances, split)
        return mixture.to(samples.dtype)

    def _checked(self, samples: Tensor) -> Tensor:
        check_embeddings("samples", samples, dim=self.dim)
        if not bool(torch.isfinite(samples).all()):
            raise ValueError("samples must be finite, got NaN or infinite entries.")
        return samples.to(self._positions)

    def _start(self, samples: Tensor) -> None:
        """Puts two nodes at two different samples (Algorithm 1, step 1)."""
        generator = Generator("cpu").manual_seed(self.seed)
        rows = samples.cpu()
        first = rows[multinomial(rows.new_zeros(len(rows)), 1, generator=generator)]
        different = (rows != first).any(dim=1)
        if not bool(different.any()):
            raise ValueError("samples must hold two different rows to start from, got equal ones.")
        second = rows[multinomial(different.log().to(rows), 1, generator=generator)]
        self._positions[:2] = torch.cat([first, second])
        self._counters[0] = 2


class _Graph:
    """The state of a gas on the CPU while it follows samples."""

    def __init__(self, gas: GrowingNeuralGas) -> None:
        self.gas = gas
        self.positions = gas._positions.cpu().clone()
        self.errors = gas._errors.cpu().clone()
        self.ages = gas._edge_ages.cpu().clone()
        self.count, self.seen = gas._counters.tolist()

    def write(self) -> None:
        """Hands the state back."""
        self.gas._positions.copy_(self.positions)
        self.gas._errors.copy_(self.errors)
        self.gas._edge_ages.copy_(self.ages)
        self.gas._counters.copy_(torch.tensor([self.count, self.seen]))

    def follow(
        self,
        sample: Tensor,  # shape: (dim,)
    ) -> None:
        """One sample of Algorithm 1."""
        gas = self.gas
        difference = sample - self.positions[: self.count]
        distances, nearest = difference.square().sum(dim=1).topk(2, largest=False)
        winner, second = nearest.tolist()
        ages = self.ages[winner]
        joined = ages > _NO_EDGE
        ages += joined
        self.errors[winner] += distances[0]
        rates = gas.neighbour_rate * joined[: self.count, None].to(sample.dtype)
        rates[winner] = gas.winner_rate
        self.positions[: self.count].addcmul_(rates, difference)
        ages[second] = 0
        self.ages[:, winner] = ages
        if ages.max() > gas.max_age:
            self._prune(winner)
        self.seen += 1
        if self.seen % gas.insert_every == 0 and self.count < gas.max_nodes:
            self._insert()
        self.errors *= gas.error_decay

    def _prune(self, winner: int) -> None:
        """Removes the winner's edges beyond the age, and the nodes that this leaves without any."""
        old = torch.nonzero(self.ages[winner] > self.gas.max_age)[:, 0]
        self.ages[winner, old] = _NO_EDGE
        self.ages[old, winner] = _NO_EDGE
        alone = old[(self.ages[old] == _NO_EDGE).all(dim=1)]
        for node in alone.flip(0).tolist():
            self._remove(node)

    def _remove(self, node: int) -> None:
        """The last node takes the place of the one that leaves."""
        self.count -= 1
        order = torch.arange(len(self.ages))
        order[node], order[self.count] = self.count, node
        self.positions, self.errors = self.positions[order], self.errors[order]
        self.ages = self.ages[order][:, order]
        self.errors[self.count] = 0.0

    def _insert(self) -> None:
        """A node between that of largest error and its neighbour of largest error (Eq. 26)."""
        new = self.count
        first = int(self.errors[:new].argmax())
        joined = self.ages[first, :new] > _NO_EDGE
        second = int(self.errors[:new].masked_fill(~joined, -1.0).argmax())
        self.positions[new] = 0.5 * (self.positions[first] + self.positions[second])
        self.ages[first, second] = self.ages[second, first] = _NO_EDGE
        pair = [first, second]
        self.ages[new, pair] = 0
        self.ages[pair, new] = 0
        self.errors[pair] *= self.gas.split_decay
        self.errors[new] = self.errors[first]
        self.count += 1
