"""A mixture of Gaussians over joint embeddings z = [z_c | z_t], and its fit by EM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, MixtureSameFamily
from torch.utils.checkpoint import checkpoint

from gmje_plugin.density.checks import check_parameters, check_points, check_weights
from gmje_plugin.density.fitting import (
    assign_to_nearest,
    check_enough,
    check_options,
    join_views,
    kmeans_plus_plus,
    m_step,
    ordinary_tensors,
)
from gmje_plugin.density.fitting import covariance_floor as floor_of
from gmje_plugin.density.gaussian import JointGaussian, check_other
from gmje_plugin.density.joint_mixture import JointMixture, log_weights_of, mixture_of
from gmje_plugin.density.monte_carlo import MonteCarloEstimate, stratified_mean
from gmje_plugin.validation import check_count, wide_dtype

# Largest product of points, components and dimensions that is expanded at a time.
_CHUNK_ELEMENTS = 2**22


class JointGaussianMixture(JointMixture):
    """Gaussian mixture density of joint embeddings z = [z_c | z_t] (Huang 2026, Eq. 12).

    The marginal and conditional densities of a joint mixture are again mixtures, which come out as
    plain ``torch.distributions.MixtureSameFamily``, as nothing is left of them to split. What has
    no closed form is estimated by Monte Carlo, as a ``MonteCarloEstimate``. See ``JointGaussian``
    for the form of the components, dtypes and gradients. The state is ``log_weights``,
    ``components.mean``, ``components.factor`` and the split; it loads into a mixture of the same
    sizes, split and kind of covariance.

    Args:
        weights: Component weights, shape (K,), at least 0 and summing to 1 (within 1e-4; they are
            normalised). A weight of exactly 0 gets no gradient.
        means: Component means, shape (K, D).
        covariances: Shape (K, D, D) for full covariances, (K, D) for the variances of diagonal
            ones, (K,) for the variances of isotropic ones; with 1 in the place of K for a
            covariance that all components share, which is never expanded.
        split: Number of context dimensions, from 1 to D - 1.
        scale_tril: In the place of full covariances, their lower Cholesky factors, shape (K, D, D),
            or (1, D, D) for a shared one. They are kept as they are.
        validate_args: Whether to check the values, which makes a GPU wait.

    Raises:
        ValueError: If a shape, dtype, value or ``split`` does not fit.

    Examples:
        >>> means = torch.tensor([[0.0, -1.0], [0.0, 1.0]])
        >>> mixture = JointGaussianMixture(torch.full((2,), 0.5), means, torch.ones(2), split=1)
        >>> mean, aleatoric, ambiguity = mixture.moments(torch.zeros(1, 1))
        >>> mean, aleatoric, ambiguity
        (tensor([[0.]]), tensor([[[1.]]]), tensor([[[1.]]]))
    """

    @ordinary_tensors()
    def __init__(
        self,
        weights: Tensor,  # shape: (K,)
        means: Tensor,  # shape: (K, D)
        covariances: Tensor | None = None,  # shape: (K, D, D) | (K, D) | (K,)
        split: int | None = None,
        *,
        scale_tril: Tensor | None = None,  # shape: (K, D, D)
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        names = ("means", "covariances")
        check_weights(weights, means, validate_values=validate_args)
        given, _ = check_parameters(
            means, covariances, scale_tril, names=names, validate_values=validate_args
        )
        dtype = wide_dtype(weights, means, given)
        self.register_buffer("log_weights", log_weights_of(weights.to(dtype)))
        self.components = JointGaussian(
            means.to(dtype), covariances, split, scale_tril=scale_tril, validate_args=False
        )

    @classmethod
    @ordinary_tensors()
    @torch.no_grad()
    def fit(
        cls,
        z_c: Tensor,  # shape: (N, split)
        z_t: Tensor,  # shape: (N, D - split)
        num_components: int,
        *,
        covariance: str = "full",
        init: str | Tensor | JointGaussianMixture = "kmeans++",  # Tensor of shape: (K, D)
        max_steps: int = 100,
        tolerance: float = 1e-3,
        covariance_floor: float = 1e-6,
        generator: Generator | None = None,
    ) -> JointGaussianMixture:
        """Fits a mixture by expectation maximisation.

        EM ends in a local optimum: of several fits, keep the one of highest likelihood.

        Args:
            z_c: Context embeddings, shape (N, split), N >= 2.
            z_t: Target embeddings, shape (N, D - split).
            num_components: K, from 1 to N.
            covariance: "full", "diagonal" or "isotropic".
            init: Where EM starts: "kmeans++", at the rows nearest to each of K seeds among them;
                means, shape (K, D), at the rows nearest to each; or a mixture, learned or fitted
                before, at its responsibilities, whatever its kind of covariance. The first
                component of the fit is that which starts as the first, and so on.
            max_steps: Largest number of EM steps.
            tolerance: EM stops when a step gains less than this in mean log-likelihood, in nats.
            covariance_floor: Share of the embeddings' own covariance (its diagonal, or mean
                variance) that every step adds to the components' covariances, without which one
                could shrink onto a point. Where the embeddings do not vary, the share is taken of
                their mean variance.
            generator: Source of the randomness of "kmeans++". Default: torch's CPU generator.

        Returns:
            The mixture after the last step, without a gradient. The steps are taken in float64,
            whatever the mixture comes out in.

        Raises:
            ValueError: If a shape, dtype or option does not fit, ``init`` included, a value is not
                finite, there are fewer rows than components, or all rows are equal.
        """
        check_options(covariance, max_steps, tolerance, covariance_floor)
        joint = join_views(z_c, z_t)
        dtype, z = joint.dtype, joint.double()
        check_enough(z, num_components)
        with torch.autocast(device_type=z.device.type, enabled=False):
            floor = floor_of(z, covariance_floor, covariance, dtype)
            responsibilities = _start(z, num_components, init, generator)
            previous = -torch.inf
            for _ in range(max_steps):
                parameters = m_step(z, responsibilities, covariance, floor)
                mixture = cls(*parameters, split=z_c.shape[1], validate_args=False)
                responsibilities, likelihood = mixture._e_step(z)
                if likelihood - previous < tolerance:
                    break
                previous = likelihood
        return mixture.to(dtype)

    @property
    def covariances(self) -> Tensor:  # shape: (K, D, D) | (K, D) | (K,)
        """Component covariances in the form they were given in."""
        return self.components.covariance

    def log_prob(
        self,
        z: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (...)
        """Log-density at joint embeddings (Huang 2026, Eq. 12).

        The points are taken in chunks of bounded memory. With more than one chunk, what a gradient
        needs is computed again in the backward pass instead of kept.

        Args:
            z: Joint embeddings, shape (..., D).

        Returns:
            The log-densities, shape (...); NaN at a NaN.

        Raises:
            ValueError: If the last dimension is not D.
        """
        chunks = self._chunks(check_points("z", z, self.means.shape[1]))
        joint_log_prob = self._joint_log_prob(sum(map(len, chunks)))

        def of_chunk(chunk: Tensor) -> Tensor:
            return joint_log_prob(chunk).logsumexp(dim=-1)

        # torch.func has no hooks on saved tensors, by which a checkpoint works.
        transformed = torch._C._are_functorch_transforms_active()
        take: Callable[[Tensor], Tensor] = of_chunk
        if len(chunks) > 1 and torch.is_grad_enabled() and not transformed:
            take = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([take(chunk) for chunk in chunks]).reshape(z.shape[:-1])

    def marginal(self, view: str) -> MixtureSameFamily:
        """The density of one view (Huang 2026, Eq. 97-98).

        Args:
            view: "context" or "target".

        Returns:
            A mixture of the view's blocks of the components, with the same weights. It checks no
            values.

        Raises:
            ValueError: If ``view`` is neither.
        """
        return mixture_of(self.log_weights, self.components.marginal(view))

    def condition(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> MixtureSameFamily:
        """The density of the target given the context (Huang 2026, Eq. 102-104).

        Args:
            z_c: Context embeddings, shape (..., split).

        Returns:
            A mixture of batch shape (...) over the target dimensions. Its weights are the
            components' responsibilities for the context; it checks no values.

        Raises:
            ValueError: If the last dimension is not ``split``.
        """
        points = check_points("z_c", z_c, self.split).to(self.means.dtype).unsqueeze(-2)
        context = self.components.held.block(slice(self.split))
        log_joint = self.log_weights + context.log_density(self.means[:, : self.split], points)
        return mixture_of(log_joint, self.components.condition(points))

    @ordinary_tensors()
    def swapped(self) -> JointGaussianMixture:
        """The same density of [z_t | z_c], whose ``condition`` predicts contexts from targets.

        Its D - ``split`` first dimensions are the target's (Huang 2026, Sec. 4.2, App. B).
        """
        mixture = JointGaussianMixture.__new__(JointGaussianMixture)
        nn.Module.__init__(mixture)
        mixture.register_buffer("log_weights", self.log_weights.clone())
        mixture.components = self.components.swapped()
        return mixture

    def entropy(
        self, *, num_samples: int = 2000, generator: Generator | None = None
    ) -> MonteCarloEstimate:
        """Differential entropy of the joint density, in nats, by Monte Carlo.

        Args:
            num_samples: Number of draws, divided evenly among the components (at least 2 each) and
                reparametrised, so that the estimate is differentiable.
            generator: Source of the noise, on any device. Default: torch's CPU generator.

        Returns:
            The estimate and its standard error.

        Raises:
            ValueError: If ``num_samples`` is not a positive integer.
        """
        return self._monte_carlo(lambda z: -self.log_prob(z), num_samples, generator)

    def mutual_information(
        self, *, num_samples: int = 2000, generator: Generator | None = None
    ) -> MonteCarloEstimate:
        """Mutual information of context and target, in nats, by Monte Carlo.

        Arguments, result and errors are those of ``entropy``.
        """
        context: Distribution = self.marginal("context")
        target: Distribution = self.marginal("target")

        def log_ratio(z: Tensor) -> Tensor:
            z_c, z_t = z[..., : self.split], z[..., self.split :]
            return self.log_prob(z) - context.log_prob(z_c) - target.log_prob(z_t)

        return self._monte_carlo(log_ratio, num_samples, generator)

    def kl(
        self,
        other: JointGaussianMixture | JointGaussian,
        *,
        num_samples: int = 2000,
        generator: Generator | None = None,
    ) -> MonteCarloEstimate:
        """Kullback-Leibler divergence to another density, in nats, by Monte Carlo.

        Args:
            other: A density of as many dimensions.
            num_samples: As in ``entropy``.
            generator: As in ``entropy``.

        Returns:
            The estimate of E[log p(z) - log q(z)], z from this density p, and its standard error.

        Raises:
            ValueError: If ``other`` is no density of as many dimensions, or ``num_samples`` no
                positive integer.
        """
        components = other.components if isinstance(other, JointGaussianMixture) else other
        check_other(components, self.means.shape[1])
        return self._monte_carlo(
            lambda z: self.log_prob(z) - other.log_prob(z), num_samples, generator
        )

    def _joint_log_prob(self, num_points: int) -> Callable[[Tensor], Tensor]:
        """From rows of points to log(pi_k N(z; mu_k, Sigma_k)), shape (N, K)."""
        log_densities = self.components.held.log_densities(self.means, num_points)
        return lambda z: self.log_weights + log_densities(z.to(self.means.dtype))

    def _chunks(self, z: Tensor) -> tuple[Tensor, ...]:
        """The points as rows, as many at a time as are expanded to the components."""
        rows = max(_CHUNK_ELEMENTS // self.means.numel(), 1)
        return torch.split(z.reshape(-1, self.means.shape[1]), rows)

    def _e_step(self, z: Tensor) -> tuple[Tensor, float]:
        """Responsibilities, shape (N, K), and the mean log-likelihood."""
        joint = torch.cat([*map(self._joint_log_prob(len(z)), self._chunks(z))])
        return joint.softmax(dim=1), float(joint.logsumexp(dim=1).mean())

    def _monte_carlo(
        self, function: Callable[[Tensor], Tensor], num_samples: int, generator: Generator | None
    ) -> MonteCarloEstimate:
        """E[function(z)] as the weighted sum of its means under the components."""
        check_count("num_samples", num_samples)
        count = max(-(-num_samples // self.means.shape[0]), 2)
        draws = self.components.rsample((count,), generator=generator)
        return stratified_mean(self.weights, function(draws))


def _start(
    z: Tensor,  # shape: (N, D)
    num_components: int,
    init: str | Tensor | JointGaussianMixture,
    generator: Generator | None,
) -> Tensor:  # shape: (N, K)
    """The responsibilities that EM starts with."""
    if isinstance(init, str) and init == "kmeans++":
        return assign_to_nearest(z, kmeans_plus_plus(z, num_components, generator))
    means = init.means if isinstance(init, JointGaussianMixture) else init
    if not isinstance(means, Tensor) or means.shape != (num_components, z.shape[1]):
        got = tuple(means.shape) if isinstance(means, Tensor) else repr(means)
        raise ValueError(
            f"init must be 'kmeans++', a mixture or means of {num_components} components in "
            f"{z.shape[1]} dimensions, got {got}."
        )
    if not bool(means.isfinite().all()):
        raise ValueError("init must be finite, got NaN or infinite means.")
    if isinstance(init, JointGaussianMixture):
        return init._e_step(z.to(init.means))[0].to(z)
    return assign_to_nearest(z, means.to(z))
