"""One Gaussian over joint embeddings z = [z_c | z_t], and what follows from it in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, kl_divergence

from gmje_plugin.density.checks import check_parameters, check_points, check_split
from gmje_plugin.density.covariance import KINDS, Covariance, Full
from gmje_plugin.density.fitting import (
    join_views,
    ordinary_tensors,
    rounding,
    weighted_covariance,
)
from gmje_plugin.density.monte_carlo import standard_normal
from gmje_plugin.linalg import cholesky
from gmje_plugin.validation import check_choice, wide_dtype


class JointGaussian(nn.Module):
    """Gaussian density of joint embeddings z = [z_c | z_t] (Huang 2026, Sec. 3.2).

    Of the covariance S only the Cholesky factor L is kept. As the context comes first, the block
    L_cc is the factor of S_cc, and L_tt that of the conditional S_tt - S_tc S_cc^-1 S_ct: no
    difference of matrices is formed that could lose definiteness. The factor of a diagonal
    covariance is its vector of standard deviations, of an isotropic one a single number; neither is
    expanded to a matrix.

    Results are differentiable in ``mean``, ``covariance`` and the points, and have the dtype of the
    Gaussian, float32 or wider, to which points are cast. The state is ``mean``, ``factor`` and
    ``split``; it loads into a Gaussian of the same size, split and kind of covariance.

    Args:
        mean: Mean, shape (D,). A mean of shape (..., D) makes a batch of Gaussians, with a batch
            shape's meaning in ``torch.distributions``; a mixture holds its components so.
        covariance: Shape (D, D) for a full covariance, (D,) for the variances of a diagonal one, ()
            for the variance of an isotropic one; after the batch shape, if there is one. Ones in
            the place of the batch shape, (1, D, D) for means (K, D), say, are a covariance that all
            share, which is never expanded.
        split: Number of context dimensions, from 1 to D - 1.
        scale_tril: In the place of a full covariance, its lower Cholesky factor, which is kept as
            it is: squaring it would lose what is small in it.
        validate_args: Whether to check the values (finite, variances positive, full covariances
            symmetric, factors lower triangular), which makes a GPU wait.

    Raises:
        ValueError: If a shape, dtype, value or ``split`` does not fit.

    Examples:
        >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
        >>> gaussian = JointGaussian(torch.zeros(2), covariance, split=1)
        >>> gaussian.condition(torch.tensor([[2.0]])).mean
        tensor([[1.6000]])
    """

    mean: Tensor
    factor: Tensor

    @ordinary_tensors()
    def __init__(
        self,
        mean: Tensor,  # shape: (..., D)
        covariance: Tensor | None = None,  # shape: (..., D, D) | (..., D) | (...)
        split: int | None = None,
        *,
        scale_tril: Tensor | None = None,  # shape: (..., D, D)
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        given, kind = check_parameters(mean, covariance, scale_tril, validate_values=validate_args)
        dtype = wide_dtype(mean, given)
        # Copies: load_state_dict writes into them, and must not reach the caller's tensors.
        if scale_tril is None:
            held = kind.of(given.to(dtype))
        else:
            held = Full(scale_tril.to(dtype, copy=True))
        self._hold(mean.to(dtype, copy=True), held, check_split(split, mean))

    def _hold(self, mean: Tensor, held: Covariance, split: int) -> None:
        self.split = split
        self.register_buffer("mean", mean)
        self.register_buffer("factor", held.factor)
        self._kind = type(held)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}split"] = torch.tensor(self.split, device="cpu")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuses the state of another split, whose dimensions mean something else."""
        buffers = dict(state_dict)
        split = int(buffers.pop(f"{prefix}split", self.split))  # states once had none
        if split != self.split:
            raise ValueError(f"split must be the state's, {split}, here it is {self.split}.")
        super()._load_from_state_dict(buffers, prefix, *args)

    @property
    def held(self) -> Covariance:
        """The covariance as what its kind can do."""
        return self._kind(self.factor)

    @classmethod
    @ordinary_tensors()
    def fit(
        cls,
        z_c: Tensor,  # shape: (N, split)
        z_t: Tensor,  # shape: (N, D - split)
        *,
        covariance: str = "full",
        zero_mean: bool = False,
    ) -> JointGaussian:
        """The Gaussian of highest likelihood, differentiable in the embeddings.

        Args:
            z_c: Context embeddings, shape (N, split), N >= 2.
            z_t: Target embeddings, shape (N, D - split).
            covariance: "full", "diagonal" or "isotropic".
            zero_mean: Whether the mean is 0, so that the covariance is the paper's Z^T Z / N
                (Huang 2026, Eq. 7-8), instead of estimated.

        Returns:
            The fit, made in float64 whatever it comes out in. The square of a difference between
            the views that float32 holds well is lost in float32. A full covariance that is
            singular (N <= D, say) to the dtype of the embeddings gets the jitter of
            ``linalg.cholesky``, with its warning.

        Raises:
            ValueError: If a shape, dtype or option does not fit, a value is not finite, or a
                diagonal or isotropic variance is 0.
        """
        check_choice("covariance", covariance, tuple(KINDS))
        narrow = join_views(z_c, z_t)
        dtype, z, split = narrow.dtype, narrow.double(), z_c.shape[1]
        mean = torch.zeros_like(z[0]) if zero_mean else z.mean(dim=0)
        weights = z.new_full((z.shape[0],), 1.0 / z.shape[0])
        estimate = weighted_covariance(z - mean, weights, covariance)
        if covariance != "full":
            return cls(mean.to(dtype), estimate.to(dtype), split)
        factor = cholesky(estimate, name="covariance", dtype=dtype, smallest=rounding(z, dtype))
        return cls(mean.to(dtype), split=split, scale_tril=factor, validate_args=False)

    @property
    def covariance(self) -> Tensor:  # shape: (..., D, D) | (..., D) | (...)
        """The covariance in the form it was given in; a shared one as a view for each mean."""
        covariance = self.held.as_given()
        batch = self.mean.shape[:-1]
        return covariance.expand((*batch, *covariance.shape[len(batch) :]))

    @property
    def conditional_covariance(self) -> Tensor:  # shape: (..., d, d) | (..., d) | (..., 1)
        """Covariance of the d target dimensions given the context (Huang 2026, Eq. 10).

        One for all means, with ones as its batch shape, if they share the covariance.
        """
        return self.held.block(slice(self.split, None)).square()

    def log_prob(
        self,
        z: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (...)
        """Log-density at joint embeddings (minus Huang 2026, Eq. 9, constant included).

        Args:
            z: Joint embeddings, shape (..., D).

        Returns:
            The log-densities, shape (...), broadcast with the batch shape; NaN at a NaN.

        Raises:
            ValueError: If the last dimension is not D.
        """
        z = check_points("z", z, self.mean.shape[-1]).to(self.mean.dtype)
        return self.held.log_density(self.mean, z)

    def marginal(self, view: str) -> Distribution:
        """The density of one view.

        Args:
            view: "context" or "target".

        Returns:
            A plain torch distribution, since nothing is left to split, ``MultivariateNormal`` for
            a full covariance, else an ``Independent`` ``Normal``. It checks no values.

        Raises:
            ValueError: If ``view`` is neither.
        """
        check_choice("view", view, ("context", "target"))
        if view == "context":
            return self.held.block(slice(self.split)).normal(self.mean[..., : self.split])
        return self.held.last(self.split).normal(self.mean[..., self.split :])

    def condition(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> Distribution:
        """The density of the target given the context (Huang 2026, Eq. 10).

        Args:
            z_c: Context embeddings, shape (..., split).

        Returns:
            A distribution of batch shape (...) over the target dimensions, of the types of
            ``marginal``. Its mean is the paper's predictor.

        Raises:
            ValueError: If the last dimension is not ``split``.
        """
        z_c = check_points("z_c", z_c, self.split).to(self.mean.dtype)
        mean = self.held.conditional_mean(self.mean, z_c)
        return self.held.block(slice(self.split, None)).normal(mean)

    def moments(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (..., d), (..., d, d), (..., d, d)
        """Mean and covariance of the d target dimensions, split as a mixture's (Eq. 105-106).

        Args:
            z_c: Context embeddings, shape (..., split).

        Returns:
            The conditional mean, the aleatoric covariance and the ambiguity, which is 0 for a
            single Gaussian.

        Raises:
            ValueError: If the last dimension is not ``split``.
        """
        mean = self.condition(z_c).mean
        covariance = self.held.as_matrix(self.conditional_covariance, mean.shape[-1])
        aleatoric = covariance.expand(*mean.shape, -1)
        return mean, aleatoric, torch.zeros_like(aleatoric)

    @ordinary_tensors()
    def swapped(self) -> JointGaussian:
        """The same density of [z_t | z_c], whose ``condition`` predicts contexts from targets.

        Its D - ``split`` first dimensions are the target's. The factor of a full covariance is made
        anew from this one's, by QR (Huang 2026, Sec. 4.2, App. B).
        """
        rest = self.mean.shape[-1] - self.split
        swapped = JointGaussian.__new__(JointGaussian)
        nn.Module.__init__(swapped)
        swapped._hold(self.mean.roll(rest, dims=-1), self.held.rolled(rest), rest)
        return swapped

    def rsample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: Generator | None = None,
    ) -> Tensor:  # shape: (*shape, ..., D)
        """Draws joint embeddings as mean + L noise, with a gradient to mean and covariance.

        Args:
            shape: Shape of the draws.
            generator: Source of the noise, on any device. Default: torch's CPU generator.

        Returns:
            The draws, shape (*shape, D); a batch shape goes between the two.
        """
        noise = standard_normal((*shape, *self.mean.shape), self.mean, generator)
        return self.mean + self.held.matvec(noise)

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: Generator | None = None,
    ) -> Tensor:  # shape: (*shape, ..., D)
        """``rsample`` without a gradient."""
        return self.rsample(shape, generator=generator)

    def entropy(self) -> Tensor:  # shape: (...)
        """Differential entropy of the joint density, in nats (Huang 2026, Eq. 38)."""
        return self.held.normal(self.mean).entropy()

    def mutual_information(self) -> Tensor:  # shape: (...)
        """Mutual information of context and target, in nats (Huang 2026, Eq. 41)."""
        given_context = self.held.block(slice(self.split, None))
        mean = self.mean[..., self.split :]
        return self.marginal("target").entropy() - given_context.normal(mean).entropy()

    def kl(self, other: JointGaussian) -> Tensor:  # shape: (...)
        """Kullback-Leibler divergence to another Gaussian, in nats (Huang 2026, Eq. 39-40).

        Args:
            other: A Gaussian q of as many dimensions, of any kind of covariance.

        Returns:
            E[log p(z) - log q(z)] for z from this Gaussian p, a 0-d tensor (or the batch shape).

        Raises:
            ValueError: If ``other`` is not a Gaussian of as many dimensions.
        """
        check_other(other, self.mean.shape[-1])
        dtype = wide_dtype(self.mean, other.mean)
        pair = [self.held, other.held]
        if any(isinstance(held, Full) for held in pair):
            pair = [Full(held.as_matrix(held.factor, self.mean.shape[-1])) for held in pair]
        p, q = (
            type(held)(held.factor.to(dtype)).normal(each.mean.to(dtype))
            for held, each in zip(pair, (self, other), strict=True)
        )
        return kl_divergence(p, q)


def check_other(other: object, dim: int) -> None:
    """Raises ``ValueError`` unless ``other`` is a Gaussian of ``dim`` dimensions."""
    if not isinstance(other, JointGaussian):
        raise ValueError(
            f"other must be a JointGaussian (or, for a mixture, a JointGaussianMixture), "
            f"got {type(other).__name__}."
        )
    if other.mean.shape[-1] != dim:
        raise ValueError(f"other must have {dim} dimensions, got {other.mean.shape[-1]}.")
