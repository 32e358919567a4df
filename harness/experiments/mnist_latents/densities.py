"""The densities of a row's embeddings: the paper's, those that others have, and the user's file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily
from torch.nn.functional import normalize

from gmje_plugin import GMJEPrototypeLoss, JointGaussianMixture
from harness.checkpoints import write_tensors
from harness.data import spread
from harness.evaluation.density import context_covariances
from harness.evaluation.latents import mixture_of

_FITTED = 10_000  # embeddings [P]
_STEPS = 20  # of EM at most [P]
_FLOOR = 1e-6  # added to variances [R], scikit-learn's: few embeddings make singular covariances


def densities(
    criterion: nn.Module,
    embeddings: Tensor,  # shape: (N, d)
    *,
    num_components: int,
    seed: int,
) -> dict[str, MixtureSameFamily]:
    """Every density of one view's embeddings that a row can have, by the name of its kind.

    Args:
        criterion: The loss that the encoder was trained with; one with prototypes adds its own.
        embeddings: Those of the training images, unit norm.
        num_components: Of the mixture fitted by EM.
        seed: Of that mixture's start.
    """
    embeddings = embeddings.cpu().double()
    some = embeddings[spread(len(embeddings), _FITTED)]
    found = {
        "gaussian": mixture_of(
            torch.ones(1), embeddings.mean(dim=0)[None], embeddings.T.cov()[None]
        ),
        "gmm": _fitted(some.float(), GaussianMixture(num_components, random_state=seed)),
    }
    if isinstance(criterion, GMJEPrototypeLoss):
        mixture = criterion.mixture()
        means = mixture.means[:, : mixture.split]
        weights, covariances = mixture.weights.double(), context_covariances(mixture)
        weights = weights / weights.sum()  # scikit-learn is strict
        moment = criterion.context_moment.moment.expand_as(covariances)
        start = GaussianMixture(
            len(weights),
            weights_init=weights.numpy(force=True),
            means_init=means.double().numpy(force=True),
            precisions_init=torch.linalg.inv(covariances.double()).numpy(force=True),
        )
        found |= {
            "prototypes": mixture_of(weights, means, covariances),
            "prototypes_ema": mixture_of(
                torch.full_like(weights, 1.0 / len(weights)), normalize(means, dim=1), moment
            ),
            "prototypes_em": _fitted(some, start),
        }
    return found


def save(mixture: JointGaussianMixture, path: Path) -> None:
    """Writes a joint density: ``JointGaussianMixture(**torch.load(path))`` is it again."""
    parts = {"weights": mixture.weights, "means": mixture.means}
    if mixture.covariances.ndim == 3:
        parts["scale_tril"] = mixture.components.factor
    else:
        parts["covariances"] = mixture.covariances
    saved = {name: part.detach().cpu() for name, part in parts.items()}
    write_tensors(path, {**saved, "split": mixture.split})


def _fitted(embeddings: Tensor, mixture: GaussianMixture) -> MixtureSameFamily:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as many steps as printed, no more
        mixture.set_params(max_iter=_STEPS, reg_covar=_FLOOR).fit(embeddings.numpy())
    parts = (mixture.weights_, mixture.means_, mixture.covariances_)
    return mixture_of(*map(torch.from_numpy, parts))
