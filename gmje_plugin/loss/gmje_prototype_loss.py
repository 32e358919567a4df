"""Likelihood of joint embeddings under a mixture of learned prototypes, with an entropy push."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from gmje_plugin.density.mixture import JointGaussianMixture
from gmje_plugin.distributed import ParameterCheck, gather_rows, require_distributed
from gmje_plugin.kernels import squared_distances
from gmje_plugin.linalg import (
    LOG_2PI,
    EMASecondMoment,
    entropy_log_det,
    learned_factor,
    log_det,
    mahalanobis,
    second_moment,
    whiten,
)
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_device,
    check_number,
    check_pair,
    check_positive,
    takes_lightly_names,
    wide_dtype,
)


class GMJEPrototypeLoss(ShowsOptions):
    """Mixture of K learned prototypes for z = [out0 | out1] (Huang 2026, Sec. 4.3, Eq. 14-16).

        (nll - entropy_weight * entropy) / input_dim,
        nll = -mean_i log sum_k weight_k N(z_i; prototype_k, covariance_k),

    in nats per dimension of a view.

    The likelihood pulls each pair of views to its prototypes, by responsibility. The entropy keeps
    all from meeting in one point: 1/2 log|S + eps * mean(diag S) * I| of the L2-normalised
    embeddings, summed over the two views, with S the average of the batches' second moments; the
    gradient to the current batch has full strength.

    Prototypes, and learned covariances and weights, are parameters: move the loss with ``.to`` and
    give ``criterion.parameters()`` to the optimizer; in plain PyTorch DDP wrap the loss, too, or
    every rank learns prototypes of its own. Four things to know when choosing options:

    - Where temperature * (1 + correlation) exceeds the largest variance of the embeddings in any
      direction (about 2/d for unit-norm views that agree), the likelihood draws all prototypes to
      one place.
    - With uncorrelated views (``correlation=0``, the paper's isotropic covariance) only a shared
      prototype holds the two views of an image together, which is too little to train encoders
      from scratch. A correlation c makes the likelihood also weigh their squared distance by
      1 / (4 temperature (1 - c)); the default makes this d * entropy_weight, as in
      ``GJEEntropyLoss``.
    - With a correlation, set ``tied=True`` for two augmented views: halves that may differ learn
      how views differ, and the encoder is no longer asked to ignore it (3.6 points of linear
      accuracy on CIFAR-10 (JPEG) at 30 epochs, one seed, with ``eps=0.1, temperature=1``).
    - A *learned* covariance lets encoders lower the likelihood without bound by shrinking clusters
      (the log-det cheat, App. O.4); learn it for embeddings that hold still.

    The loss is computed in float32 under autocast, in float64 for float64 embeddings.

    Attributes:
        input_dim: Features of one view, d.
        num_prototypes: K.
        covariance: "isotropic", temperature times the identity; "diagonal" or "full", learned from
            that start.
        shared: Whether all prototypes have one covariance (Eq. 14-15) or each its own (Eq. 16).
        temperature: Variance of an isotropic covariance, start of the others. Default: 0.1.
        correlation: Correlation c, in [0, 1), of the same feature of the two views given the
            prototype, under an isotropic covariance: temperature * [[I, c I], [c I, I]]. Default:
            None, 1 - 1 / (4 temperature d entropy_weight), or 0 where that is negative; 0 for
            learned covariances and without entropy.
        tied: Whether the two halves of a prototype are equal, for two views of one kind. Default:
            False, as in the paper, for contexts and targets of different kinds.
        learn_temperature: Whether an isotropic covariance is learned too.
        learn_weights: Whether the prototypes' weights are learned instead of uniform.
        normalize: Whether each view, and each view's half of a prototype, has unit norm.
        entropy_weight: Weight of the entropy, at least 0; 0 skips it. Default: 1.
        momentum: Share of the history in each update of S, in [0, 1). At 0.99 the entropy
            answers a change of the encoder 100 steps late, and the embeddings swing. Default: 0.5,
            for batches of fewer rows than d. With more, try 0: on CIFAR-10 (JPEG), d = 128,
            ``eps=0.1``, it gained 4 points of linear accuracy in batches of 256 (2 epochs) and
            lost 2 of kNN accuracy in batches of 64 (600 steps).
        eps: Share of the mean diagonal of S that is added to it, at least 0.
        gather_distributed: Whether S is taken over the batches of all ranks.
        seed: Seed of the initial prototypes, whose two halves are equal, as the views of an image
            lie close together.
        terms: After a forward pass, the detached parts ``nll`` and, unless skipped, ``entropy``, in
            nats.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import GMJEPrototypeLoss
        >>> criterion = GMJEPrototypeLoss(128, 64, tied=True, eps=0.1)  # was: NTXentLoss()
        >>> optimizer = torch.optim.Adam(criterion.parameters())  # and the model's
        >>> loss = criterion(torch.randn(256, 128), torch.randn(256, 128))
        >>> density = criterion.mixture()
    """

    def __init__(
        self,
        input_dim: int,
        num_prototypes: int,
        *,
        covariance: str = "isotropic",
        shared: bool = True,
        temperature: float = 0.1,
        correlation: float | None = None,
        tied: bool = False,
        learn_temperature: bool = False,
        learn_weights: bool = False,
        normalize: bool = True,
        entropy_weight: float = 1.0,
        momentum: float = 0.5,
        eps: float = 1e-4,
        gather_distributed: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_distributed(gather_distributed)
        check_choice("covariance", covariance, ("isotropic", "diagonal", "full"))
        if learn_temperature and covariance != "isotropic":
            raise ValueError(
                "learn_temperature must be False unless covariance is 'isotropic', "
                f"got {covariance!r}, which is learned anyway."
            )
        self.input_dim = check_count("input_dim", input_dim)
        self.num_prototypes = check_count("num_prototypes", num_prototypes)
        self.covariance = covariance
        self.shared = shared
        self.temperature = check_positive("temperature", temperature)
        self.tied = tied
        self.learn_temperature = learn_temperature
        self.learn_weights = learn_weights
        self.normalize = normalize
        self.entropy_weight = check_number("entropy_weight", entropy_weight, low=0.0)
        if correlation is None:
            balance = 4.0 * self.temperature * self.input_dim * self.entropy_weight
            isotropic = covariance == "isotropic" and balance > 1.0
            correlation = 1.0 - 1.0 / balance if isotropic else 0.0
        self.correlation = check_number(
            "correlation", correlation, low=0.0, high=1.0, high_open=True
        )
        if correlation > 0.0 and covariance != "isotropic":
            raise ValueError(
                f"correlation must be 0 unless covariance is 'isotropic', got {correlation} "
                f"with {covariance!r}."
            )
        self.momentum = check_number("momentum", momentum, low=0.0, high=1.0, high_open=True)
        self.eps = check_number("eps", eps, low=0.0)
        self.gather_distributed = gather_distributed
        self.seed = check_count("seed", seed, low=0)
        self._make_parameters()
        self.context_moment = EMASecondMoment(input_dim, momentum)
        self.target_moment = EMASecondMoment(input_dim, momentum)
        self._check_ranks = ParameterCheck()
        self.terms: dict[str, Tensor] = {}

    def _make_parameters(self) -> None:
        generator = Generator().manual_seed(self.seed)
        half = torch.randn(self.num_prototypes, self.input_dim, generator=generator)
        half = F.normalize(half, dim=1) if self.normalize else half
        self.prototypes = nn.Parameter(half if self.tied else half.repeat(1, 2))
        self.logits = nn.Parameter(
            torch.zeros(self.num_prototypes), requires_grad=self.learn_weights
        )
        # What is learned is the covariance over the temperature, so that zeros are the start.
        kinds, dim = 1 if self.shared else self.num_prototypes, 2 * self.input_dim
        if self.covariance == "full":
            self.raw_factor = nn.Parameter(torch.zeros(kinds, dim, dim))
        else:
            isotropic = self.covariance == "isotropic"
            self.log_scale = nn.Parameter(
                torch.zeros(kinds, 1 if isotropic else dim),
                requires_grad=self.learn_temperature or not isotropic,
            )

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, input_dim)
        out1: Tensor,  # shape: (B, input_dim)
    ) -> Tensor:  # shape: ()
        """The loss of a batch of B pairs.

        Args:
            out0: Context embeddings, shape (B, input_dim), B >= 2 unless the entropy is skipped.
            out1: Target embeddings, shape (B, input_dim).

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        if isinstance(out0, (list, tuple)):
            raise ValueError(
                "out0 must be a tensor, got a list: SwaVLoss takes prototype scores of all crops, "
                "GMJEPrototypeLoss the embeddings of two views, before any prototypes."
            )
        min_rows = 2 if self.entropy_weight > 0.0 else 1
        check_pair(out0, out1, dim=self.input_dim, min_rows=min_rows)
        check_device("out0", self.prototypes, out0)
        dtype = wide_dtype(out0, out1, self.prototypes)
        if self.gather_distributed:
            self._check_ranks(self)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z = self._views(torch.cat([out0.to(dtype), out1.to(dtype)], dim=1))
            log_probs = self._component_log_probs(z, self._means(dtype))
            log_weights = self.logits.to(dtype).log_softmax(dim=0)
            loss = nll = -torch.logsumexp(log_probs + log_weights, dim=1).mean()
            terms = {"nll": nll.detach()}
            if self.entropy_weight > 0.0:
                entropy = self._entropy(z)
                terms["entropy"] = entropy.detach()
                loss = nll - self.entropy_weight * entropy
        self.terms = terms
        return loss / self.input_dim

    def mixture(self) -> JointGaussianMixture:
        """The density learned so far, over 2 * input_dim dimensions, differentiable."""
        dtype = wide_dtype(self.prototypes)
        factors: Tensor | None = None
        covariances: Tensor | None = None
        with torch.autocast(device_type=self.prototypes.device.type, enabled=False):
            if self.covariance == "full":
                factors = self._factor(dtype)
            elif self.correlation > 0.0:
                deviations = self._variances(dtype).sqrt()
                other = math.sqrt(1.0 - self.correlation**2)
                pair = deviations.new_tensor([[1.0, 0.0], [self.correlation, other]])
                eye = torch.eye(self.input_dim, dtype=dtype, device=pair.device)
                factors = deviations[..., None] * torch.kron(pair, eye)
            else:
                covariances = self._variances(dtype)
                covariances = covariances[:, 0] if self.covariance == "isotropic" else covariances
            return JointGaussianMixture(
                weights=self.logits.to(dtype).softmax(dim=0),
                means=self._means(dtype),
                covariances=covariances,
                split=self.input_dim,
                scale_tril=factors,
            )

    def _views(self, z: Tensor) -> Tensor:
        """The rows, each view's half of unit norm if ``normalize``; shape (N, 2 * input_dim)."""
        return _unit_halves(z) if self.normalize else z

    def _means(self, dtype: torch.dtype) -> Tensor:  # shape: (K, 2 * input_dim)
        means = self.prototypes.to(dtype)
        return self._views(means.repeat(1, 2) if self.tied else means)

    def _factor(self, dtype: torch.dtype) -> Tensor:  # shape: (1 | K, D, D)
        return math.sqrt(self.temperature) * learned_factor(self.raw_factor.to(dtype))

    def _variances(self, dtype: torch.dtype) -> Tensor:  # shape: (1 | K, 1 | D)
        return self.temperature * self.log_scale.to(dtype).exp()

    def _component_log_probs(
        self,
        z: Tensor,  # shape: (B, D)
        means: Tensor,  # shape: (K, D)
    ) -> Tensor:  # shape: (B, K)
        dim = z.shape[1]
        if self.covariance == "full":
            factor = self._factor(z.dtype)
            log_dets = log_det(factor)
            if self.shared:
                distances = squared_distances(whiten(factor[0], z), whiten(factor[0], means))
            else:
                distances = mahalanobis(factor, z - means[:, None]).mT
        else:
            variances = self._variances(z.dtype).expand(-1, dim)
            if self.correlation > 0.0:
                z, means = _sum_and_difference(z), _sum_and_difference(means)
                sums, differences = variances.chunk(2, dim=1)
                factors = 1.0 + self.correlation, 1.0 - self.correlation
                variances = torch.cat([factors[0] * sums, factors[1] * differences], dim=1)
            log_dets = variances.log().sum(dim=1)
            distances = squared_distances(z, means, 1.0 / variances)
        return -0.5 * (distances + log_dets + dim * LOG_2PI)

    def _entropy(self, z: Tensor) -> Tensor:
        """Entropies of both views' averaged second moments, the whole gradient to this batch."""
        rows = z if self.normalize else _unit_halves(z)
        rows = gather_rows(rows) if self.gather_distributed else rows
        context, target = rows[:, : self.input_dim], rows[:, self.input_dim :]
        moments = (
            self.context_moment(second_moment(context), full_gradient=True),
            self.target_moment(second_moment(target), full_gradient=True),
        )
        return entropy_log_det(moments[0], self.eps) + entropy_log_det(moments[1], self.eps)


def _unit_halves(
    z: Tensor,  # shape: (N, 2 * d)
) -> Tensor:  # shape: (N, 2 * d)
    return F.normalize(z.reshape(len(z), 2, -1), dim=2).flatten(1)


def _sum_and_difference(
    z: Tensor,  # shape: (N, 2 * d)
) -> Tensor:  # shape: (N, 2 * d)
    """The axes, of unit length, in which views correlated feature by feature are uncorrelated."""
    first, second = z.chunk(2, dim=1)
    return torch.cat([first + second, first - second], dim=1) / math.sqrt(2.0)
