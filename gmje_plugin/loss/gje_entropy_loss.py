"""Alignment of two views against the entropy of their Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin.distributed import gather_rows, require_distributed
from gmje_plugin.linalg import entropy_log_det, second_moment
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_choice,
    check_number,
    check_pair,
    takes_lightly_names,
    wide_dtype,
)


class GJEEntropyLoss(ShowsOptions):
    """Pulls the views of an image together and spreads the batch (Huang 2026, App. G and O.3).

    With z0, z1 the L2-normalised embeddings of size d and S the zero-mean second moment Z^T Z / B
    (Eq. 7-8), the loss is, in nats per dimension,

        (alignment_weight * alignment - weight * entropy) / d,
        alignment = d * mean_i ||z0_i - z1_i||^2,
        entropy   = 1/2 log|S + eps * mean(diag S) * I|, summed over the two views.

    A unit-norm embedding has a variance of about 1/d in each dimension; the alignment is the
    squared distance in that unit. Both parts then grow with d alike, and one ``weight`` serves
    every d; the entropy drowns the plain squared distance as d grows. (Divide ``weight`` by d to
    convert.)

    The entropy has the sign opposite to the log-determinant of the likelihood, which would shrink
    the embeddings to a point (see ``GJENLLLoss``). The loss is computed in float32 under autocast,
    in float64 for float64 embeddings.

    Attributes:
        weight: Weight of the entropy, at least 0. Default: 1.
        covariance: "marginal" for the entropies of both views, "joint" for that of [z0 | z1]
            (Algorithm 5), which also pushes the two views of an image apart.
        alignment_weight: Weight of the alignment, at least 0. With 0 it is the entropy alone, as
            Algorithm 5 has it and as a regulariser beside another loss (App. I.4). Default: 1.
        eps: Share of the mean diagonal of S that is added to it, at least 0. It bounds the entropy
            where the batch spans fewer than d dimensions; 0.1 was better by 2.8 points of linear
            accuracy at d = 128 and B = 256 (CIFAR-10, 2 epochs, one seed). Default: 1e-4.
        gather_distributed: Whether S is taken over the batches of all ranks.
        terms: After a forward pass, the detached parts ``alignment`` and ``entropy``, in nats.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import GJEEntropyLoss
        >>> criterion = GJEEntropyLoss()  # was: NTXentLoss()
        >>> loss = criterion(torch.randn(256, 128), torch.randn(256, 128))
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        covariance: str = "marginal",
        alignment_weight: float = 1.0,
        eps: float = 1e-4,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        check_choice("covariance", covariance, ("marginal", "joint"))
        require_distributed(gather_distributed)
        self.weight = check_number("weight", weight, low=0.0)
        self.covariance = covariance
        self.alignment_weight = check_number("alignment_weight", alignment_weight, low=0.0)
        self.eps = check_number("eps", eps, low=0.0)
        self.gather_distributed = gather_distributed
        self.terms: dict[str, Tensor] = {}

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, d)
        out1: Tensor,  # shape: (B, d)
    ) -> Tensor:  # shape: ()
        """The loss of a batch of B >= 2 pairs.

        Args:
            out0: Embeddings of the first views, shape (B, d); normalised here.
            out1: Embeddings of the second views, shape (B, d); normalised here.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1, min_rows=2)
        dtype = wide_dtype(out0, out1)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z0, z1 = normalize(out0.to(dtype), dim=1), normalize(out1.to(dtype), dim=1)
            alignment = z0.shape[1] * (z0 - z1).square().sum(dim=1).mean()
            if self.gather_distributed:
                z0, z1 = gather_rows(z0), gather_rows(z1)
            entropy = self._entropy(z0, z1)
            loss = self.alignment_weight * alignment - self.weight * entropy
        self.terms = {"alignment": alignment.detach(), "entropy": entropy.detach()}
        return loss / out0.shape[1]

    def _entropy(self, z0: Tensor, z1: Tensor) -> Tensor:
        if self.covariance == "joint":
            return entropy_log_det(second_moment(torch.cat([z0, z1], dim=1)), self.eps)
        moments = second_moment(z0), second_moment(z1)
        return entropy_log_det(moments[0], self.eps) + entropy_log_det(moments[1], self.eps)
