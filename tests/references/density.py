"""Joint Gaussians and mixtures written out with explicit inverses, in float64 NumPy."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

Array = NDArray[np.float64]


def conditional(mean: Array, covariance: Array, split: int, z_c: Array) -> tuple[Array, Array]:
    """Mean and covariance of z_t given one z_c (Huang 2026, Eq. 10 and 103)."""
    s_cc, s_ct = covariance[:split, :split], covariance[:split, split:]
    s_tc, s_tt = covariance[split:, :split], covariance[split:, split:]
    predictor = s_tc @ np.linalg.inv(s_cc)
    return mean[split:] + predictor @ (z_c - mean[:split]), s_tt - predictor @ s_ct


def mutual_information(covariance: Array, split: int) -> float:
    """Huang 2026, Eq. 41."""
    blocks = covariance[:split, :split], covariance[split:, split:], covariance
    log_c, log_t, log_joint = (np.linalg.slogdet(block)[1] for block in blocks)
    return float(0.5 * (log_c + log_t - log_joint))


def kl(mean_p: Array, covariance_p: Array, mean_q: Array, covariance_q: Array) -> float:
    """Huang 2026, Eq. 39-40."""
    precision, shift = np.linalg.inv(covariance_q), mean_q - mean_p
    log_ratio = np.linalg.slogdet(covariance_q)[1] - np.linalg.slogdet(covariance_p)[1]
    trace = np.trace(precision @ covariance_p)
    return float(0.5 * (trace + shift @ precision @ shift - len(mean_p) + log_ratio))


def mixture_log_prob(weights: Array, means: Array, covariances: Array, z: Array) -> Array:
    """Huang 2026, Eq. 12."""
    densities = [
        weight * multivariate_normal(mean, covariance).pdf(z)
        for weight, mean, covariance in zip(weights, means, covariances, strict=True)
    ]
    return np.log(sum(densities))


def mixture_conditional(
    weights: Array, means: Array, covariances: Array, split: int, z_c: Array
) -> tuple[Array, Array, Array]:
    """Weights, means and covariances of the mixture of z_t given one z_c (Eq. 102-104)."""
    evidence = np.array(
        [
            weight * multivariate_normal(mean[:split], covariance[:split, :split]).pdf(z_c)
            for weight, mean, covariance in zip(weights, means, covariances, strict=True)
        ]
    )
    parts = [
        conditional(mean, covariance, split, z_c)
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    return (
        evidence / evidence.sum(),
        np.stack([mean for mean, _ in parts]),
        np.stack([covariance for _, covariance in parts]),
    )


def mixture_moments(weights: Array, means: Array, covariances: Array) -> tuple[Array, Array, Array]:
    """Mean, mean covariance and covariance of the means of a mixture (Eq. 105-106)."""
    mean = sum(w * m for w, m in zip(weights, means, strict=True))
    aleatoric = sum(w * c for w, c in zip(weights, covariances, strict=True))
    ambiguity = sum(w * np.outer(m - mean, m - mean) for w, m in zip(weights, means, strict=True))
    return mean, aleatoric, ambiguity
