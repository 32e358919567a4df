"""What mixtures of joint embeddings z = [z_c | z_t] share, whatever their components are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from gmje_plugin.density.gaussian import JointGaussian
from gmje_plugin.density.monte_carlo import standard_normal
from gmje_plugin.resampling import multinomial


class JointMixture(nn.Module):
    """Weights, and components held by the means and factors of Gaussians."""

    log_weights: Tensor
    components: JointGaussian

    @property
    def weights(self) -> Tensor:  # shape: (K,)
        """Component weights."""
        return self.log_weights.exp()

    @property
    def means(self) -> Tensor:  # shape: (K, D)
        """Component means; of a Student t its location."""
        return self.components.mean

    @property
    def split(self) -> int:
        """Number of context dimensions."""
        return self.components.split

    @abstractmethod
    def condition(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> MixtureSameFamily:
        """The density of the target given the context."""

    def moments(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (..., d), (..., d, d), (..., d, d)
        """Mean and both parts of the covariance of the target given the context.

        Args:
            z_c: Context embeddings, shape (..., split).

        Returns:
            The conditional mean, the aleatoric covariance (the components' own, averaged) and the
            ambiguity (the covariance of their means), d = D - split. The last two add up to the
            conditional covariance (Huang 2026, Eq. 105-106).

        Raises:
            ValueError: If the last dimension is not ``split``, or the covariance of a Student t is
                infinite: it exists with more than 2 degrees of freedom only, which are
                nu + ``split`` if ``coupling`` is "joint".
        """
        conditional = self.condition(z_c)
        weights = conditional.mixture_distribution.probs
        components = conditional.component_distribution
        mean, shares = conditional.mean, weights * self._widths(components)
        with torch.autocast(device_type=weights.device.type, enabled=False):
            apart = components.mean - mean[..., None, :]
            ambiguity = (weights[..., None] * apart).mT @ apart
            own = self.components.conditional_covariance
            if len(own) == 1:  # shared
                shares = shares.sum(dim=-1, keepdim=True)
            aleatoric = torch.tensordot(shares, own, dims=1)
        return mean, self.components.held.as_matrix(aleatoric, mean.shape[-1]), ambiguity

    def _widths(self, components: Any) -> Tensor | float:  # noqa: ARG002
        """Factors, shape (..., K), on the components' conditional covariances."""
        return 1.0

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: Generator | None = None,
    ) -> Tensor:  # shape: (*shape, D)
        """Draws joint embeddings (Huang 2026, Sec. 4.8), without a gradient.

        Args:
            shape: Shape of the draws.
            generator: Source of the randomness, on any device. Default: torch's CPU generator.

        Returns:
            The draws, shape (*shape, D).
        """
        shape = torch.Size(shape)
        if shape.numel() == 0:
            return self.means.new_empty((*shape, self.means.shape[1]))
        drawn = multinomial(self.log_weights, shape.numel(), generator=generator)
        component, order = drawn.sort()
        noise = self._noise(component, generator)
        counts = torch.bincount(drawn, minlength=len(self.means)).tolist()
        samples = torch.empty_like(noise)
        samples[order] = self.means[component] + self.components.held.scale(noise, counts)
        return samples.reshape(*shape, -1)

    def _noise(
        self,
        component: Tensor,  # shape: (N,)
        generator: Generator | None,
    ) -> Tensor:  # shape: (N, D)
        """Draws of each point's component at the origin with the identity for a scale."""
        return standard_normal((len(component), self.means.shape[1]), self.means, generator)


def log_weights_of(
    weights: Tensor,  # shape: (K,)
) -> Tensor:  # shape: (K,)
    """Normalised logarithms; a weight of 0 is -inf and gets the gradient 0, not NaN."""
    zero = weights == 0
    return torch.where(zero, 1.0, weights).log().masked_fill(zero, -torch.inf).log_softmax(dim=0)


def mixture_of(logits: Tensor, components: Distribution) -> MixtureSameFamily:
    """A mixture of torch; unchecked, as its components are."""
    weights = Categorical(logits=logits, validate_args=False)
    return MixtureSameFamily(weights, components, validate_args=False)
