"""A prediction head that answers with a density instead of a point."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.functional import softplus

from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_embeddings,
    check_positive,
    wide_dtype,
)

# Of the head's means beside the context: with 1 they move too fast for the encoder.
_RESIDUAL_SCALE = 0.1


class GMJEMDNHead(nn.Module):
    """Mixture density network: p(z_t | z_c) from the context alone (Huang 2026, Sec. 4.4).

    In the place of lightly's ``BYOLPredictionHead``. A two-layer trunk (each Linear, BatchNorm1d,
    ReLU) and three linear heads give a mixture of K isotropic Gaussians (Eq. 18): weights by a
    softmax, unconstrained means (Eq. 19) and one standard deviation a component (Eq. 21). It has to
    see the context only: a head that sees the target too copies it (identity collapse).

    Attributes:
        input_dim: Number of context features.
        hidden_dim: Width of the trunk.
        output_dim: Number of target features d.
        num_components: K. Default: 5.
        scale: How a standard deviation comes from the head's output s: "exp", exp(s) (Eq. 21), or
            "softplus", softplus(s) + ``min_scale``, which bounds the likelihood. Default: "exp".
        min_scale: Smallest standard deviation under "softplus", above 0. Where encoders learn with
            the head, one near that of unit-norm targets, 1 / sqrt(output_dim), keeps easy images
            from outweighing all others. Default: 0.001.
        residual: Whether the means are the context plus 0.1 times the head's output, so that a
            prediction starts near the context; needs ``input_dim == output_dim``. It lets encoders
            that are trained from scratch, on views of one image, agree from the start.
            Default: False, as in the paper.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> import torch
        >>> from gmje_plugin import GMJEMDNHead
        >>> prediction_head = GMJEMDNHead(256, 512, 128, num_components=3)
        >>> density = prediction_head(torch.randn(64, 256))
        >>> density.log_prob(torch.randn(64, 128)).shape
        torch.Size([64])
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        *,
        num_components: int = 5,
        scale: str = "exp",
        min_scale: float = 1e-3,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_choice("scale", scale, ("exp", "softplus"))
        self.input_dim = check_count("input_dim", input_dim)
        self.hidden_dim = check_count("hidden_dim", hidden_dim)
        self.output_dim = check_count("output_dim", output_dim)
        self.num_components = check_count("num_components", num_components)
        self.scale = scale
        self.min_scale = check_positive("min_scale", min_scale)
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

    def forward(
        self,
        z_c: Tensor,  # shape: (B, input_dim)
    ) -> MixtureSameFamily:
        """The conditional density of the target embeddings.

        Args:
            z_c: Context embeddings, shape (B, input_dim); B >= 2 in training, for the batch norm.

        Returns:
            A mixture of batch shape (B,) and event shape (output_dim,), in float32 or wider, that
            carries ``z_c`` as its attribute ``context``. It checks no values, so that a NaN comes
            out as a NaN and no GPU has to wait.

        Raises:
            ValueError: If the shape or dtype of ``z_c`` does not fit.
        """
        check_embeddings("z_c", z_c, dim=self.input_dim)
        hidden = self.trunk(z_c)
        dtype = wide_dtype(hidden)
        logits, log_scales = self.logits(hidden).to(dtype), self.log_scales(hidden).to(dtype)
        means = self.means(hidden).to(dtype).unflatten(1, (self.num_components, self.output_dim))
        if self.residual:
            means = z_c.to(dtype)[:, None] + _RESIDUAL_SCALE * means
        scales = log_scales.exp() if self.scale == "exp" else softplus(log_scales) + self.min_scale
        components = Normal(means, scales[..., None], validate_args=False)
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            Independent(components, 1, validate_args=False),
            validate_args=False,
        )
        mixture.context = z_c  # type: ignore[attr-defined]
        return mixture
