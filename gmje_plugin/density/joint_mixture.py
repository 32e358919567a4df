"""What mixtures of joint embeddings z = [z_c | z_t] share, whatever their components are."""

from __future__ import annotations

from collections.abc import Sequence

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
