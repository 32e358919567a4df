"""The SMC bank and its loss written out densely in float64, one formula a function."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize


def pool_log_weights(
    bank: Tensor,
    log_weights: Tensor,
    keys: Tensor,
    queries: Tensor,
    *,
    temperature: float,
    count_own_query: bool,
) -> Tensor:
    """Prior plus log mean_i exp(q_i . z_j / T) over the queries counted (Huang 2026, Eq. 34)."""
    bank, keys, queries = bank.double(), keys.double(), queries.double()
    size = len(bank)
    values = []
    for j in range(size):
        terms = [float(q @ bank[j]) / temperature for q in queries]
        values.append(float(log_weights[j]) + log_mean_exp(terms))
    particle_mean = log_mean_exp([float(q @ z) / temperature for z in bank for q in queries])
    for j in range(len(keys)):
        terms = [
            float(q @ keys[j]) / temperature
            for i, q in enumerate(queries)
            if count_own_query or i != j
        ]
        values.append(-math.log(size) + (log_mean_exp(terms) if terms else particle_mean))
    return torch.tensor(values, dtype=torch.float64)


def log_mean_exp(values: list[float]) -> float:
    """log of the mean exponential of some numbers."""
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values) / len(values))


def smc_ntxent(
    out0: Tensor,
    out1: Tensor,
    bank: Tensor,
    log_weights: Tensor | None,
    *,
    temperature: float,
    in_batch_negatives: bool,
    hardness: float,
) -> Tensor:
    """Eq. 33 with all options, from the whole (B, M + 2 B) matrix of logits."""
    queries, keys = normalize(out0.double(), dim=1), normalize(out1.double(), dim=1)
    batch = len(queries)
    positives = (queries * keys).sum(dim=1) / temperature
    logits = [queries @ bank.double().T / temperature]
    multiplicities = [torch.zeros(batch, len(bank), dtype=torch.float64)]
    if log_weights is not None:
        multiplicities = [(log_weights.double() + math.log(len(bank))).expand(batch, -1)]
    if in_batch_negatives:
        other = ~torch.eye(batch, dtype=torch.bool)
        for points in (keys, queries):
            products = queries @ points.T / temperature
            logits.append(products[other].view(batch, batch - 1))
            multiplicities.append(torch.zeros(batch, batch - 1, dtype=torch.float64))
    e, m = torch.cat(logits, dim=1), torch.cat(multiplicities, dim=1)
    n = e.shape[1]
    hard = hardness * e.detach()
    negatives = (
        math.log(n) + torch.logsumexp(e + hard + m, dim=1) - torch.logsumexp(hard + m, dim=1)
        if hardness > 0
        else torch.logsumexp(e + m, dim=1)
    )
    return (torch.logaddexp(positives, negatives) - positives).mean()
