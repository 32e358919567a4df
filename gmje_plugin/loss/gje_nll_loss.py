"""Exact likelihood of joint embeddings under one Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmje_plugin.distributed import ParameterCheck, gather_rows, require_distributed
from gmje_plugin.linalg import (
    LOG_2PI,
    EMASecondMoment,
    cholesky,
    learned_factor,
    log_det,
    mahalanobis,
    second_moment,
)
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_device,
    check_number,
    check_pair,
    takes_lightly_names,
    wide_dtype,
)


class GJENLLLoss(ShowsOptions):
    """Negative log-likelihood of z = [out0 | out1] under N(0, S) (Huang 2026, Eq. 9).

        mean_i 1/2 z_i^T S^-1 z_i  +  1/2 log|S|  +  D/2 log 2 pi,   D = 2 * input_dim,

    over ``input_dim`` (nats per dimension of a view), on the embeddings as given. It models
    embeddings that hold still. As a loss for *encoders* it fails in two ways, which it is here to
    show (``GJEEntropyLoss`` is the one to train with):

    - *Trace trap* (Eq. 122-127): with S the second moment of the same batch the first part is the
      constant D/2 and has no gradient.
    - *Log-det cheat* (App. O.4): with any S that can follow, shrinking all embeddings to the origin
      lowers the loss without bound.

    A singular S ("batch" with fewer than D rows, "ema" in its first steps, constant embeddings)
    gets the smallest jitter that factorises, with a ``RuntimeWarning``; the density of such a batch
    is degenerate, and the value says how large the jitter was. The loss is computed in float32
    under autocast, in float64 for float64 embeddings.

    Attributes:
        input_dim: Features of one view.
        covariance: Where S comes from: "ema", the exponential moving average of the batches'
            Z^T Z / B, with a gradient to the current batch's share; "batch", the current batch
            alone; "learned", a parameter, which starts at the identity: give it to the optimizer.
        momentum: Share of the history in each update of "ema", in [0, 1). Default: 0.99.
        gather_distributed: Whether "ema" and "batch" take the batches of all ranks.
        terms: After a forward pass, the detached parts ``data_fit`` (1/2 z^T S^-1 z) and
            ``log_det`` (1/2 log|S|), in nats.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import GJENLLLoss
        >>> criterion = GJENLLLoss(128, covariance="learned")
        >>> optimizer = torch.optim.Adam(criterion.parameters())
        >>> loss = criterion(torch.randn(256, 128), torch.randn(256, 128))
    """

    def __init__(
        self,
        input_dim: int,
        *,
        covariance: str = "ema",
        momentum: float = 0.99,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        check_choice("covariance", covariance, ("ema", "batch", "learned"))
        require_distributed(gather_distributed)
        self.input_dim = check_count("input_dim", input_dim)
        self.covariance = covariance
        self.momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        self.gather_distributed = gather_distributed
        if covariance == "learned":
            self.raw_factor = nn.Parameter(torch.zeros(2 * input_dim, 2 * input_dim))
        elif covariance == "ema":
            self.moment = EMASecondMoment(2 * input_dim, momentum)
        self._check_ranks = ParameterCheck()
        self.terms: dict[str, Tensor] = {}

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, input_dim)
        out1: Tensor,  # shape: (B, input_dim)
    ) -> Tensor:  # shape: ()
        """The mean negative log-likelihood of a batch of B pairs.

        Args:
            out0: Context embeddings, shape (B, input_dim), B >= 2 unless S is learned.
            out1: Target embeddings, shape (B, input_dim).

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        min_rows = 1 if self.covariance == "learned" else 2
        check_pair(out0, out1, dim=self.input_dim, min_rows=min_rows)
        dtype = wide_dtype(out0, out1)
        if self.gather_distributed and self.covariance == "learned":
            self._check_ranks(self)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z = torch.cat([out0.to(dtype), out1.to(dtype)], dim=1)
            factor = self._factor(z)
            data_fit = 0.5 * mahalanobis(factor, z).mean()
            half_log_det = 0.5 * log_det(factor)
            loss = (data_fit + half_log_det) / self.input_dim + LOG_2PI
        self.terms = {"data_fit": data_fit.detach(), "log_det": half_log_det.detach()}
        return loss

    def _factor(self, z: Tensor) -> Tensor:
        """Cholesky factor of S, shape (D, D)."""
        if self.covariance == "learned":
            check_device("out0", self.raw_factor, z)
            return learned_factor(self.raw_factor.to(z.dtype))
        moment = second_moment(gather_rows(z) if self.gather_distributed else z)
        return cholesky(self.moment(moment) if self.covariance == "ema" else moment)
