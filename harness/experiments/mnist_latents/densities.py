"""The densities of a row's embeddings: the paper's, those that others have, and the user's file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn.functional import normalize

from gmje_plugin import GMJEPrototypeLoss, JointGaussianMixture
from harness.checkpoints import write_tensors
from harness.data import evenly_spaced
from harness.evaluation.mixtures import GaussianMixtures

_FITTED = 10_000  # embeddings [P]
_STEPS = 20  # of EM at most [P]
_FLOOR = 1e-6  # added to variances [R], scikit-learn's: few embeddings make singular covariances


def fit_densities(
    criterion: nn.Module,
    embeddings: Tensor,  # shape: (N, d)
    *,
    num_components: int,
    seed: int,
) -> dict[str, GaussianMixtures]:
    """Every density of one view's embeddings that a row can have, by the name of its kind.

    Args:
        criterion: The loss that the encoder was trained with; one with prototypes adds its own.
        embeddings: Those of the training images, unit norm.
        num_components: Of the mixture fitted by EM.
        seed: Of that mixture's start.
    """
    embeddings = embeddings.cpu().double()
    some = embeddings[evenly_spaced(len(embeddings), _FITTED)]
    found = {
        "gaussian": GaussianMixtures.single(embeddings.mean(dim=0), embeddings.T.cov()),
        "gmm": _fitted(some.float(), GaussianMixture(num_components, random_state=seed)),
    }
    if isinstance(criterion, GMJEPrototypeLoss):
        own = GaussianMixtures.of(criterion.mixture().marginal("context")).double()
        num_prototypes = len(own.weights)
        start = GaussianMixture(
            num_prototypes,
            weights_init=(own.weights / own.weights.sum()).numpy(),  # scikit-learn is strict
            means_init=own.means.numpy(),
            precisions_init=torch.cholesky_inverse(own.factors).numpy(),
        )
        found |= {
            "prototypes": own,
            "prototypes_ema": GaussianMixtures(
                torch.full_like(own.weights, 1.0 / num_prototypes),
                normalize(own.means, dim=1),
                torch.linalg.cholesky(criterion.context_moment.moment.cpu().double()).expand_as(
                    own.factors
                ),
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


def _fitted(embeddings: Tensor, mixture: GaussianMixture) -> GaussianMixtures:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as many steps as printed, no more
        mixture.set_params(max_iter=_STEPS, reg_covar=_FLOOR).fit(embeddings.numpy())
    weights, means, covariances = (
        torch.from_numpy(part).double()
        for part in (mixture.weights_, mixture.means_, mixture.covariances_)
    )
    return GaussianMixtures(weights, means, torch.linalg.cholesky(covariances))
