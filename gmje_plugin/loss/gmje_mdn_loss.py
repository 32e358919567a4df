"""Likelihood of the target under a predicted density, with a guard on the context."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import normalize

from gmje_plugin.distributed import gather_rows, rank, require_distributed
from gmje_plugin.linalg import (
    LOG_2PI,
    EMASecondMoment,
    cholesky,
    entropy_log_det,
    log_det,
    mahalanobis,
    second_moment,
)
from gmje_plugin.modules.mdn_head import PredictedMixture
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_embeddings,
    check_number,
    takes_lightly_names,
    wide_dtype,
)


class GMJEMDNLoss(ShowsOptions):
    """Conditional likelihood of the target plus a guard on the context (Huang 2026, Eq. 22-23).

        (nll + guard_weight * guard) / d,   nll = -mean_i log p(z_t,i | z_c,i),

    in nats per dimension, where ``GMJEMDNHead`` gives p and d is the target's number of features.
    In the place of ``NegativeCosineSimilarity`` in BYOL: two lines change, the head and the
    criterion. The two arguments may come in either order, as lightly's examples have both. The
    guard acts on the context embeddings that the distribution carries, so with a head that passes
    gradients on, it acts on the encoder.

    - "entropy": minus the entropy 1/2 log|S + eps * mean(diag S) * I| of the L2-normalised context,
      whose second moment S is averaged over the batches (App. G); the gradient to the current
      batch has full strength. It spreads the context.
    - "marginal": the negative log-likelihood of the context as given under N(0, S), as Eq. 23
      prints it. **It pulls the context to the origin** (the log-det cheat of App. O.4) and is here
      to show that.
    - "contrastive": the log-density of the target under the batch's mixture of conditionals, which
      takes the marginal's place,

          guard = mean_i log (1/B) sum_j p(z_t,i | z_c,j).

      nll + guard is minus a lower bound of the mutual information of target and context, at most
      log B (van den Oord et al. 2018; Poole et al. 2019): InfoNCE with the conditional density as
      critic, where the variances take the temperature's place. A context that says nothing of its
      target gains nothing, so no further guard is needed, and targets may be learned too. It is
      of InfoNCE's size, **so it is not divided by d**. It needs no ``input_dim`` and no context.
      Made for unit-norm embeddings and ``GMJEMDNHead(..., residual=True, min_scale=0.3,
      init_scale=0.32)``, whose deviations start as InfoNCE's temperature of 0.1 and stay above
      0.09: where they start apart or may fall further, the bound tells contexts apart by d times
      the deviations' logarithms, and gradients are large.
    - None: no guard.

    The loss is computed in float32 under autocast, in float64 for float64 embeddings.

    Attributes:
        input_dim: Features of the context; needed for "entropy" and "marginal".
        guard: "entropy", "marginal", "contrastive" or None.
        guard_weight: Weight of the guard, at least 0; "contrastive" is a bound at 1. Default: 1.
        momentum: Share of the history in each update of S, in [0, 1). At 0.99 the entropy guard
            answers a change of the encoder 100 steps late, and the embeddings swing. Default: 0.5.
        eps: Share of the mean diagonal of S that the entropy guard adds to it, at least 0.
        gather_distributed: Whether S, or the mixture of conditionals, is taken over the batches of
            all ranks; for "contrastive" the distribution has to be ``GMJEMDNHead``'s.
        terms: After a forward pass, the detached parts ``nll`` and, if there is one, ``guard``, in
            nats.

    Raises:
        ValueError: If an argument is out of its range, ``input_dim`` is missing for a guard, or a
            distribution does not fit the targets or carries no context for the guard.

    Examples:
        >>> from gmje_plugin import GMJEMDNHead, GMJEMDNLoss
        >>> prediction_head = GMJEMDNHead(256, 1024, 256)  # was: BYOLPredictionHead(256, 1024, 256)
        >>> criterion = GMJEMDNLoss(256)  # was: NegativeCosineSimilarity()
        >>> loss = criterion(prediction_head(torch.randn(64, 256)), torch.randn(64, 256))
    """

    def __init__(
        self,
        input_dim: int | None = None,
        *,
        guard: str | None = "entropy",
        guard_weight: float = 1.0,
        momentum: float = 0.5,
        eps: float = 1e-4,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        require_distributed(gather_distributed)
        self.input_dim = input_dim
        self.guard = guard
        self.guard_weight = check_number("guard_weight", guard_weight, low=0.0)
        self.momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        self.eps = check_number("eps", eps, low=0.0)
        self.gather_distributed = gather_distributed
        if guard is not None:
            check_choice("guard", guard, ("entropy", "marginal", "contrastive"))
        if guard in ("entropy", "marginal"):
            if input_dim is None:
                raise ValueError(
                    f"input_dim must be the size of the context for guard={guard!r}, got None."
                )
            self.context_moment = EMASecondMoment(check_count("input_dim", input_dim), momentum)
        self.terms: dict[str, Tensor] = {}

    @takes_lightly_names
    def forward(
        self,
        distribution: Distribution,
        z_t: Tensor,  # shape: (B, output_dim)
    ) -> Tensor:  # shape: ()
        """The loss of a batch of B targets, B >= 2 under a guard; the order is free.

        Args:
            distribution: Predicted density of the targets, of batch shape (B,) and event shape
                (output_dim,); under "entropy" and "marginal" with the context embeddings (B,
                input_dim) as its attribute ``context``, as ``GMJEMDNHead`` gives it.
            z_t: Target embeddings, shape (B, output_dim), as given.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes or dtypes do not fit, or the context is missing for the guard.
        """
        if isinstance(z_t, Distribution):
            distribution, z_t = z_t, distribution
        if not isinstance(distribution, Distribution):
            raise ValueError(
                "distribution must be a torch distribution, as GMJEMDNHead predicts one, got "
                f"{type(distribution).__name__}: put GMJEMDNHead in the place of the prediction "
                "head, too."
            )
        check_embeddings("z_t", z_t)
        expected = (*distribution.batch_shape, *distribution.event_shape)
        if z_t.shape != expected:
            raise ValueError(
                f"z_t must have the distribution's shape {expected}, got {tuple(z_t.shape)}."
            )
        with torch.autocast(device_type=z_t.device.type, enabled=False):
            value = z_t.to(wide_dtype(z_t))
            if self.guard == "contrastive":
                nll, guard = self._contrast(distribution, value)
            else:
                nll, guard = -distribution.log_prob(value).mean(), None
                if self.guard is not None:
                    guard = self._guard(self._context(distribution))
            terms, loss = {"nll": nll.detach()}, nll
            if guard is not None:
                terms["guard"] = guard.detach()
                loss = nll + self.guard_weight * guard
        self.terms = terms
        return loss if self.guard == "contrastive" else loss / z_t.shape[1]

    def _contrast(
        self,
        distribution: Distribution,
        z_t: Tensor,  # shape: (B, output_dim)
    ) -> tuple[Tensor, Tensor]:  # shapes: (), ()
        """Negative log-likelihood, and log-density under the mixture of all contexts."""
        if isinstance(distribution, PredictedMixture):
            if self.gather_distributed:
                distribution = distribution.gather()
            log_probs = distribution.pairwise_log_prob(z_t)
        elif self.gather_distributed:
            raise ValueError(
                "distribution must be GMJEMDNHead's for guard='contrastive' with "
                f"gather_distributed=True, got {type(distribution).__name__}."
            )
        else:
            log_probs = distribution.log_prob(z_t[:, None])
        rows, contexts = log_probs.shape
        if contexts < 2:
            raise ValueError(
                f"z_t must have at least 2 rows, got {rows}: guard='contrastive' needs others."
            )
        # Both from one matrix, so that rounding cannot break the bound.
        own = log_probs.diagonal(offset=rank() * rows if self.gather_distributed else 0)
        return -own.mean(), log_probs.logsumexp(dim=1).mean() - math.log(contexts)

    def _context(self, distribution: Distribution) -> Tensor:
        context = getattr(distribution, "context", None)
        if context is None:
            raise ValueError(
                f"distribution must carry its context for guard={self.guard!r}, "
                f"got a {type(distribution).__name__} without an attribute context."
            )
        check_embeddings("distribution.context", context, dim=self.input_dim)
        if context.shape[0] < 2:
            raise ValueError(
                f"distribution.context must have at least 2 rows, got {context.shape[0]}."
            )
        wide: Tensor = context.to(wide_dtype(context))
        return wide

    def _guard(self, context: Tensor) -> Tensor:
        if self.guard == "entropy":
            moment = self._moment(normalize(context, dim=1))
            return -entropy_log_det(self.context_moment(moment, full_gradient=True), self.eps)
        factor = cholesky(self.context_moment(self._moment(context)))
        constant = context.shape[1] * LOG_2PI
        return 0.5 * (mahalanobis(factor, context).mean() + log_det(factor) + constant)

    def _moment(self, rows: Tensor) -> Tensor:
        return second_moment(gather_rows(rows) if self.gather_distributed else rows)
