"""A prediction head that answers with a density instead of a point."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.functional import softplus
from torch.utils._pytree import register_pytree_node

from gmje_plugin.distributed import gather_rows
from gmje_plugin.linalg import LOG_2PI
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_embeddings,
    check_number,
    check_positive,
    wide_dtype,
)

# Of the head's means beside the context: with 1 they move too fast for the encoder.
_RESIDUAL_SCALE = 0.1


@dataclass(eq=False, repr=False)
class PredictedMixture(MixtureSameFamily):
    """Mixtures of K isotropic Gaussians, one for each context (Huang 2026, Eq. 18).

    Its density is computed from the logarithms of the deviations, so none underflows. It checks no
    values: a NaN comes out as a NaN, and no GPU has to wait. Being a dataclass and a registered
    pytree, it lets DDP see the tensors in it.

    Attributes:
        logits: Log-weights up to a constant, shape (B, K).
        means: Shape (B, K, output_dim).
        log_scales: Logarithms of the standard deviations, shape (B, K).
        context: The embeddings that it was predicted from, shape (B, input_dim).
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    context: Tensor

    def __post_init__(self) -> None:
        """Makes the distribution of torch that it is."""
        components = Normal(self.means, self.log_scales.exp()[..., None], validate_args=False)
        super().__init__(
            Categorical(logits=self.logits, validate_args=False),
            Independent(components, 1, validate_args=False),
            validate_args=False,
        )

    def log_prob(
        self,
        value: Tensor,  # shape: (..., B, output_dim)
    ) -> Tensor:  # shape: (..., B)
        """Log-density of targets, in nats."""
        scaled = (value[..., None, :] - self.means) * (-self.log_scales).exp()[..., None]
        constant = self.means.shape[-1] * (self.log_scales + 0.5 * LOG_2PI)
        log_probs = -0.5 * scaled.square().sum(dim=-1) - constant
        return torch.logsumexp(self.logits.log_softmax(dim=-1) + log_probs, dim=-1)

    def pairwise_log_prob(
        self,
        value: Tensor,  # shape: (N, output_dim)
    ) -> Tensor:  # shape: (N, B)
        """Log-density of every target under every one of B mixtures, by one matrix product."""
        # Around the mean of all, where the squares of the distances cancel least.
        origin = self.means.detach().mean(dim=(0, 1))
        value = value - origin
        means = (self.means - origin).to(value.dtype)
        precisions = (-2.0 * self.log_scales).exp()[..., None]
        slopes = precisions * means
        constants = (
            self.logits.log_softmax(dim=-1)
            - means.shape[-1] * (self.log_scales + 0.5 * LOG_2PI)
            - 0.5 * (slopes * means).sum(dim=-1)
        ).mT
        terms = torch.cat([slopes, -0.5 * precisions], dim=-1).transpose(0, 1)
        powers = torch.cat([value, value.square().sum(dim=-1, keepdim=True)], dim=-1)
        # Components before contexts, as a sum over the last few numbers of a row is slow.
        log_probs = torch.addmm(constants.flatten(), powers, terms.flatten(0, 1).mT)
        return log_probs.reshape(-1, *constants.shape).logsumexp(dim=1)

    def gather(self) -> PredictedMixture:
        """The mixtures of all ranks in rank order, with gradients to every rank's own."""
        return PredictedMixture(*(gather_rows(tensor) for tensor in _tensors(self)))

    def expand(
        self,
        batch_shape: Size | list[int] | tuple[int, ...],
        _instance: object = None,
    ) -> PredictedMixture:
        """The same mixtures for a larger batch shape, as of any distribution of torch."""
        batch = Size(batch_shape)
        event_dims = (1, 2, 1, 1)
        return PredictedMixture(
            *(
                tensor.expand(*batch, *tensor.shape[-events:])
                for tensor, events in zip(_tensors(self), event_dims, strict=True)
            )
        )


def _tensors(mixture: PredictedMixture) -> tuple[Tensor, ...]:
    return tuple(getattr(mixture, field.name) for field in fields(mixture))


register_pytree_node(
    PredictedMixture,
    lambda mixture: (list(_tensors(mixture)), None),
    lambda tensors, _: PredictedMixture(*tensors),
)


class GMJEMDNHead(ShowsOptions):
    """Mixture density network: p(z_t | z_c) from the context alone (Huang 2026, Sec. 4.4).

    In the place of lightly's ``BYOLPredictionHead``, with its arguments and defaults. A two-layer
    trunk (each Linear, BatchNorm1d, ReLU) and three linear heads give a mixture of K isotropic
    Gaussians (Eq. 18): weights by a softmax, unconstrained means (Eq. 19) and one standard
    deviation a component (Eq. 21). It has to see the context only: a head that sees the target too
    copies it (identity collapse).

    Attributes:
        input_dim: Number of context features. Default: 256.
        hidden_dim: Width of the trunk. Default: 4096.
        output_dim: Number of target features d. Default: 256.
        num_components: K. Default: 5.
        scale: How a standard deviation comes from the head's output s. Default: "bounded", its
            logarithm stays between those of ``min_scale`` and ``max_scale`` by a hyperbolic
            tangent, so that no density and no gradient can run away. "softplus", softplus(s) +
            ``min_scale``, as in the paper's experiments; "exp", exp(s), as in Eq. 21: both can run
            away under SGD.
        min_scale: Smallest standard deviation under "bounded" and "softplus", above 0. Where
            encoders learn with the head, one near that of unit-norm targets, 1 / sqrt(output_dim),
            keeps easy images from outweighing all others. Default: None, 0.1 under "bounded", which
            suits the features of lightly's projections (deviations of about 0.4), and 0.001 under
            "softplus".
        max_scale: Largest standard deviation under "bounded", above ``min_scale``. Default: 10.
        init_scale: Where all standard deviations start, above ``min_scale``; with ``residual`` all
            means start at the context, too. Default: None, they start apart, around 0.7 +
            ``min_scale`` under "softplus", 1 otherwise, as the weights of any ``nn.Linear`` are
            random. For ``GMJEMDNLoss(guard="contrastive")``: its square is the temperature at the
            start, and deviations that start apart tell contexts apart by output_dim times their
            logarithms, whatever the target.
        residual: Whether the means are the context plus 0.1 times the head's output, so that a
            prediction starts near the context; needs ``input_dim == output_dim``. It lets encoders
            that are trained from scratch, on views of one image, agree from the start.
            Default: False, as in the paper.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> import torch
        >>> from gmje_plugin import GMJEMDNHead
        >>> prediction_head = GMJEMDNHead(256, 1024, 256)  # was: BYOLPredictionHead(256, 1024, 256)
        >>> density = prediction_head(torch.randn(64, 256))
        >>> density.log_prob(torch.randn(64, 256)).shape
        torch.Size([64])
    """

    def __init__(
        self,
        input_dim: int = 256,
        hidden_dim: int = 4096,
        output_dim: int = 256,
        *,
        num_components: int = 5,
        scale: str = "bounded",
        min_scale: float | None = None,
        max_scale: float = 10.0,
        init_scale: float | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_choice("scale", scale, ("bounded", "softplus", "exp"))
        self.input_dim = check_count("input_dim", input_dim)
        self.hidden_dim = check_count("hidden_dim", hidden_dim)
        self.output_dim = check_count("output_dim", output_dim)
        self.num_components = check_count("num_components", num_components)
        self.scale = scale
        if min_scale is None:
            min_scale = 0.1 if scale == "bounded" else 1e-3
        self.min_scale = check_positive("min_scale", min_scale)
        self.max_scale = check_number("max_scale", max_scale, low=self.min_scale, low_open=True)
        self.residual = residual
        if residual and input_dim != output_dim:
            raise ValueError(
                f"residual must be False unless input_dim is output_dim, "
                f"got {input_dim} and {output_dim}."
            )
        # As in lightly's heads, no bias under a batch norm.
        self.trunk = nn.Sequential(
            nn.Linear(input_dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
        )
        self.logits = nn.Linear(hidden_dim, num_components)
        self.means = nn.Linear(hidden_dim, num_components * output_dim)
        self.log_scales = nn.Linear(hidden_dim, num_components)
        self.init_scale = init_scale
        if init_scale is not None:
            nn.init.zeros_(self.log_scales.weight)
            nn.init.constant_(self.log_scales.bias, self._unbound(init_scale))
            if residual:
                nn.init.zeros_(self.means.weight)
                nn.init.zeros_(self.means.bias)

    def forward(
        self,
        z_c: Tensor,  # shape: (B, input_dim)
    ) -> PredictedMixture:
        """The conditional density of the target embeddings.

        Args:
            z_c: Context embeddings, shape (B, input_dim); B >= 2 in training, for the batch norm.

        Returns:
            A ``torch.distributions.MixtureSameFamily`` of batch shape (B,) and event shape
            (output_dim,), in float32 or wider, that carries ``z_c`` as its attribute ``context``.

        Raises:
            ValueError: If the shape or dtype of ``z_c`` does not fit.
        """
        check_embeddings("z_c", z_c, dim=self.input_dim)
        hidden = self.trunk(z_c)
        dtype = wide_dtype(hidden)
        means = self.means(hidden).to(dtype).unflatten(1, (self.num_components, self.output_dim))
        if self.residual:
            means = z_c.to(dtype)[:, None] + _RESIDUAL_SCALE * means
        return PredictedMixture(
            logits=self.logits(hidden).to(dtype),
            means=means,
            log_scales=self._bound(self.log_scales(hidden).to(dtype)),
            context=z_c,
        )

    def _bound(self, outputs: Tensor) -> Tensor:  # shape: (B, K)
        """Logarithms of the standard deviations."""
        if self.scale == "exp":
            return outputs
        if self.scale == "softplus":
            return (softplus(outputs) + self.min_scale).log()
        centre, reach = self._centre_and_reach()
        return centre + reach * torch.tanh((outputs - centre) / reach)

    def _unbound(self, scale: float) -> float:
        """The output whose standard deviation is ``scale``, the inverse of ``_bound``."""
        low = 0.0 if self.scale == "exp" else self.min_scale
        high = self.max_scale if self.scale == "bounded" else math.inf
        check_number("init_scale", scale, low=low, high=high, low_open=True, high_open=True)
        if self.scale == "exp":
            return math.log(scale)
        if self.scale == "softplus":
            return scale - low + math.log(-math.expm1(low - scale))
        centre, reach = self._centre_and_reach()
        return centre + reach * math.atanh((math.log(scale) - centre) / reach)

    def _centre_and_reach(self) -> tuple[float, float]:
        low, high = math.log(self.min_scale), math.log(self.max_scale)
        return 0.5 * (low + high), 0.5 * (high - low)
