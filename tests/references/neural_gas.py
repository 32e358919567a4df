"""Growing neural gas as a loop over dictionaries, in float64 (Huang 2026, Algorithm 1)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass
class NeuralGas:
    """The graph of Fritzke 1994: places and errors by node, ages by pair of nodes."""

    max_nodes: int
    max_age: int
    winner_rate: float
    neighbour_rate: float
    insert_every: int
    split_decay: float
    error_decay: float
    places: dict[int, Array] = dataclasses.field(default_factory=dict)
    errors: dict[int, float] = dataclasses.field(default_factory=dict)
    ages: dict[frozenset[int], int] = dataclasses.field(default_factory=dict)
    seen: int = 0
    made: int = 0
    removed: int = 0

    def add(self, place: Array, error: float) -> int:
        """A new node without edges."""
        node = self.made
        self.made += 1
        self.places[node], self.errors[node] = np.array(place, dtype=np.float64), error
        return node

    def neighbours(self, node: int) -> list[int]:
        """The nodes that share an edge with this one."""
        return [other for edge in self.ages if node in edge for other in edge - {node}]

    def follow(self, sample: Array) -> None:
        """One sample: Eq. 24-25, the edges, every ``insert_every`` samples Eq. 26, the decay."""
        distance = {node: float(((sample - m) ** 2).sum()) for node, m in self.places.items()}
        first, second = sorted(distance, key=distance.__getitem__)[:2]
        for other in self.neighbours(first):
            self.ages[frozenset((first, other))] += 1
        self.errors[first] += distance[first]
        self.places[first] += self.winner_rate * (sample - self.places[first])
        for other in self.neighbours(first):
            self.places[other] += self.neighbour_rate * (sample - self.places[other])
        self.ages[frozenset((first, second))] = 0
        self.ages = {edge: age for edge, age in self.ages.items() if age <= self.max_age}
        for node in [node for node in self.places if not self.neighbours(node)]:
            del self.places[node], self.errors[node]
            self.removed += 1
        self.seen += 1
        if self.seen % self.insert_every == 0 and len(self.places) < self.max_nodes:
            self.insert()
        self.errors = {node: error * self.error_decay for node, error in self.errors.items()}

    def insert(self) -> None:
        """A node between the one of largest error and its neighbour of largest error (Eq. 26)."""
        first = max(self.errors, key=self.errors.__getitem__)
        second = max(self.neighbours(first), key=self.errors.__getitem__)
        new = self.add((self.places[first] + self.places[second]) / 2, 0.0)
        del self.ages[frozenset((first, second))]
        self.ages[frozenset((first, new))] = self.ages[frozenset((new, second))] = 0
        self.errors[first] *= self.split_decay
        self.errors[second] *= self.split_decay
        self.errors[new] = self.errors[first]
