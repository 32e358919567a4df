"""Log-weights of the pool of a bank's particles and a batch's keys (Huang 2026, Eq. 34)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmje_plugin.distributed import gather_rows


def pool_log_weights(
    log_weights: Tensor,  # shape: (M,)
    particle_scores: Tensor,  # shape: (M,)
    key_scores: Tensor,  # shape: (B,)
    *,
    counted: Tensor,  # shape: (B,)
    rejected: Tensor,  # shape: (B,)
    count_own_query: bool,
) -> Tensor:  # shape: (M + B,)
    """Weights before the update times the likelihoods under the batch's queries.

    Args:
        log_weights: Of the particles, shape (M,); a key has log 1/M.
        particle_scores: Log of the sum of a particle's likelihoods over the counted queries.
        key_scores: The same of the keys, without their own queries unless ``count_own_query``.
        counted: Which queries are finite, boolean.
        rejected: Which keys are not, boolean; they weigh nothing.
        count_own_query: Whether a key's own query counts.

    Returns:
        Unnormalised log-weights, the keys' last, float64.
    """
    # Without a query nothing is known of anyone: the weights stay.
    particle_scores = particle_scores.masked_fill(~counted.any(), 0.0)
    prior = -math.log(len(log_weights))
    counted = counted.to(key_scores.dtype)
    total = counted.sum()
    # Scores are sums: a key's is over one query less than a particle's, if its own counts.
    own = torch.zeros_like(counted) if count_own_query else counted
    scores = key_scores + prior - (-own / total).log1p()
    # Of a key without any other query nothing is known: the mean over the particles.
    mean = particle_scores.logsumexp(dim=0) + 2.0 * prior
    newcomers = torch.where(own == total, mean, scores)
    pool = torch.cat([log_weights + particle_scores, newcomers]).double()
    # Rows so large that their products overflow must not bring a NaN into the weights.
    pool.nan_to_num_(0.0, 1e30, -1e30)
    pool[len(log_weights) :].masked_fill_(rejected, -math.inf)
    return pool


def over_ranks(scores: Tensor) -> Tensor:  # shape: (N,)
    """Scores for the queries of all ranks, from those for each rank's."""
    return gather_rows(scores[None]).logsumexp(dim=0)
