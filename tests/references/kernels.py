"""Kernel matrices, Gaussian processes and HSIC written out with explicit inverses, in NumPy."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]


def kernel_matrix(x: Array, y: Array, *, kernel: str, length_scale: float = 1.0) -> Array:
    """Kernel values of all pairs of rows (Huang 2026, Sec. 3.1)."""
    if kernel == "linear":
        return x @ y.T
    return np.exp(-cdist(x, y, "sqeuclidean") / (2.0 * length_scale**2))


def dual_nll(kernel_values: Array, z_t: Array, noise: float) -> tuple[float, float]:
    """Data fit and log-determinant of Eq. 3-4, for one sample, from a B x B kernel matrix."""
    batch, dim = z_t.shape
    matrix = kernel_values + noise * np.eye(batch)
    data_fit = 0.5 * np.trace(z_t.T @ np.linalg.inv(matrix) @ z_t)
    return float(data_fit / batch), float(0.5 * dim * np.linalg.slogdet(matrix)[1] / batch)


def primal_prediction(z_c: Array, z_t: Array, new: Array, noise: float) -> tuple[Array, Array]:
    """Mean and variance of the linear-Gaussian predictor in feature space (App. J)."""
    batch, dim = z_c.shape
    s_cc, s_tc = z_c.T @ z_c / batch, z_t.T @ z_c / batch
    mean = new @ (s_tc @ np.linalg.inv(s_cc + noise / batch * np.eye(dim))).T
    precision = np.linalg.inv(z_c.T @ z_c + noise * np.eye(dim))
    return mean, noise * np.einsum("bi,ij,bj->b", new, precision, new)


def primal_log_det(z_c: Array, noise: float) -> float:
    """log|Z Z^T + noise I_B| = log|Z^T Z + noise I_d| + (B - d) log noise (Eq. 88-91)."""
    batch, dim = z_c.shape
    return float(
        np.linalg.slogdet(z_c.T @ z_c + noise * np.eye(dim))[1] + (batch - dim) * np.log(noise)
    )


def hsic(first: Array, second: Array) -> float:
    """Eq. 83 from two kernel matrices and the centring matrix H."""
    batch = len(first)
    centring = np.eye(batch) - np.ones((batch, batch)) / batch
    return float(np.trace(first @ centring @ second @ centring) / (batch - 1) ** 2)
