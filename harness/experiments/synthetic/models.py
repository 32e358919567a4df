"""The models: each is fitted to pairs and gives a density of the target for any context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.cluster import KMeans
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from gmje_plugin import (
    GJEDualLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GrowingNeuralGas,
    JointGaussianMixture,
    JointSMCLoss,
)
from harness.evaluation.mixtures import GaussianMixtures
from harness.keyed_random import seeded
from harness.settings import SyntheticSettings

NUM_COMPONENTS = 3  # [P]: as many as A and B have branches, one more than the arm


@dataclass(frozen=True)
class Fitted:
    """A model after its fit.

    Attributes:
        condition: The density of the target, from contexts of shape (N, d_c).
        num_components: Of the density; those of a joint mixture serve all contexts.
        mixture: The joint density, if the model is one.
    """

    condition: Callable[[Tensor], GaussianMixtures]
    num_components: int
    mixture: JointGaussianMixture | None = None


@dataclass(frozen=True)
class Model:
    """A model before its fit: its name in tables, and the fit to pairs from settings and a seed."""

    title: str
    fit: Callable[[Tensor, Tensor, SyntheticSettings, int], Fitted]


def _jepa(z_c: Tensor, z_t: Tensor, settings: SyntheticSettings, seed: int) -> Fitted:
    """A deterministic predictor; as a density, a Gaussian of its residuals' covariance."""
    context, target, width = z_c.float(), z_t.float(), settings.hidden_dim
    with seeded(seed):
        network = nn.Sequential(
            nn.Linear(z_c.shape[1], width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, z_t.shape[1]),
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.jepa_learning_rate, fused=True)
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        mse_loss(network(context), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        residuals = z_t - network(context)
    covariance = residuals.mT @ residuals / len(residuals)
    return Fitted(lambda x: GaussianMixtures.single(network(x.float()), covariance), 1)


def _gaussian_process(z_c: Tensor, z_t: Tensor, settings: SyntheticSettings, seed: int) -> Fitted:
    kernel = RBF(settings.length_scale) + WhiteKernel(settings.kernel_noise)
    process = GaussianProcessRegressor(kernel, optimizer=None, random_state=seed)
    process.fit(z_c.numpy(), z_t.numpy())

    def condition(x: Tensor) -> GaussianMixtures:
        mean, deviation = process.predict(x.numpy(), return_std=True)
        variances = torch.from_numpy(deviation).square().reshape(len(x), -1)
        return GaussianMixtures.single(
            torch.from_numpy(mean).reshape(len(x), -1),
            torch.diag_embed(variances.expand(-1, z_t.shape[1])),
        )

    return Fitted(condition, 1)


def _dual(
    z_c: Tensor,
    z_t: Tensor,
    settings: SyntheticSettings,
    seed: int,  # noqa: ARG001
) -> Fitted:
    """The same process by the plugin's exact dual form."""
    criterion = GJEDualLoss(length_scale=settings.length_scale, noise=settings.kernel_noise)
    criterion.fit(z_c, z_t)
    eye = torch.eye(z_t.shape[1], dtype=z_t.dtype)

    def condition(x: Tensor) -> GaussianMixtures:
        mean, variance = criterion.predict(x)
        return GaussianMixtures.single(
            mean, (variance + settings.kernel_noise)[:, None, None] * eye
        )

    return Fitted(condition, 1)


def _em(
    z_c: Tensor,
    z_t: Tensor,
    settings: SyntheticSettings,  # noqa: ARG001
    seed: int,
    *,
    num_components: int,
) -> Fitted:
    """From the clusters of k-means, as scikit-learn's ``GaussianMixture`` starts [P]."""
    pairs = torch.cat([z_c, z_t], dim=1)
    clusters = KMeans(num_components, n_init=1, random_state=seed).fit(pairs.numpy())
    init = torch.from_numpy(clusters.cluster_centers_)
    return _of_mixture(JointGaussianMixture.fit(z_c, z_t, num_components, init=init))


def _gas(z_c: Tensor, z_t: Tensor, settings: SyntheticSettings, seed: int) -> Fitted:
    samples = torch.cat([z_c, z_t], dim=1)
    gas = GrowingNeuralGas(samples.shape[1], settings.max_nodes, seed=seed).double()
    for batch in _shuffled(samples, settings.gng_epochs, seed):
        gas.partial_fit(batch)
    return _of_mixture(gas.to_mixture(samples, z_c.shape[1]))


def _mdn(z_c: Tensor, z_t: Tensor, settings: SyntheticSettings, seed: int) -> Fitted:
    context, target = z_c.float(), z_t.float()
    with seeded(seed):
        head = GMJEMDNHead(
            z_c.shape[1],
            settings.hidden_dim,
            z_t.shape[1],
            num_components=NUM_COMPONENTS,
            scale="exp",  # as in Eq. 21
        )
    criterion = GMJEMDNLoss(guard=None)  # there is no encoder to guard
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.mdn_learning_rate, fused=True)
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        criterion(head(context), target).backward()
        optimizer.step()
    head.eval()
    return Fitted(lambda x: GaussianMixtures.of(head(x.float())).double(), NUM_COMPONENTS)


def _joint_smc(z_c: Tensor, z_t: Tensor, settings: SyntheticSettings, seed: int) -> Fitted:
    criterion = JointSMCLoss(z_c.shape[1], settings.num_particles, seed=seed).double()
    optimizer = torch.optim.Adam(criterion.parameters(), lr=settings.smc_learning_rate, fused=True)
    pairs, split = torch.cat([z_c, z_t], dim=1), z_c.shape[1]
    for epoch in _shuffled(pairs, settings.smc_epochs, seed):
        for batch in torch.split(epoch, settings.smc_batch_size):
            optimizer.zero_grad()
            criterion(batch[:, :split], batch[:, split:]).backward()
            optimizer.step()
    return _of_mixture(criterion.mixture())


def _of_mixture(mixture: JointGaussianMixture) -> Fitted:
    return Fitted(
        lambda x: GaussianMixtures.of(mixture.condition(x)).double().pruned(),
        len(mixture.weights),
        mixture,
    )


def _shuffled(rows: Tensor, epochs: int, seed: int) -> list[Tensor]:
    generator = Generator().manual_seed(seed)
    return [rows[torch.randperm(len(rows), generator=generator)] for _ in range(epochs)]


MODELS = {
    "jepa": Model("classic JEPA", _jepa),
    "gp": Model("RBF GP", _gaussian_process),
    "dual": Model("GJE dual, exact", _dual),
    "em1": Model("GMJE-EM, K = 1", partial(_em, num_components=1)),
    "em3": Model("GMJE-EM, K = 3", partial(_em, num_components=NUM_COMPONENTS)),
    "gng": Model("GMJE-GNG", _gas),
    "mdn": Model("GMJE-MDN", _mdn),
    "smc": Model("joint SMC", _joint_smc),
}
