"""A mixture of Student t over joint embeddings z = [z_c | z_t], and its fit by ECM."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import MixtureSameFamily

from gmje_plugin.density.checks import check_df, check_parameters, check_points, check_weights
from gmje_plugin.density.covariance import Full
from gmje_plugin.density.fitting import (
    assign_to_nearest,
    check_enough,
    check_options,
    join_views,
    kmeans_plus_plus,
    ordinary_tensors,
)
from gmje_plugin.density.fitting import covariance_floor as floor_of
from gmje_plugin.density.gaussian import JointGaussian
from gmje_plugin.density.joint_mixture import JointMixture, log_weights_of, mixture_of
from gmje_plugin.density.multivariate_t import (
    MultivariateStudentT,
    distances,
    heavy_tails,
    log_density,
)
from gmje_plugin.density.student_t_fitting import (
    calibration,
    joint_log_density,
    log_distance,
    m_step,
    updated_df,
)
from gmje_plugin.linalg import log_det, whiten
from gmje_plugin.validation import check_choice, check_number, check_positive, wide_dtype

_COUPLINGS = ("joint", "independent")
_START_DF = 10.0


class JointStudentTMixture(JointMixture):
    """Student t mixture density of joint embeddings z = [z_c | z_t].

    As ``JointGaussianMixture`` (Huang 2026, Eq. 12), with components whose distances from the
    centre vary more than a Gaussian's, all the less the more degrees of freedom nu they have.
    ``coupling`` says how far an outlying context makes an outlying target:

    - "joint": pi_k t(z; mu_k, S_k, nu_k), one scale for both views (Peel and McLachlan 2000).
      Marginal and conditional densities are such mixtures again. In many dimensions the context
      all but tells the scale, and the conditional, of nu + ``split`` degrees of freedom, is close
      to a Gaussian.
    - "independent": pi_k t(z_c; nu_k,c) t(z_t; A_k z_c + b_k, nu_k,t), a scale for the context and
      one of its own for the residual (cluster-weighted; Ingrassia, Minotti and Vittadini 2012).
      The target has no marginal density in closed form. How far the context is out may set the
      residual's scale in part, by ``power``: see ``calibrated``.

    The state is ``log_weights``, ``df``, ``power``, the split, ``components.mean``
    and ``components.factor``; of the blocks of the latter two A_k, b_k and both scales are made as
    a Gaussian's conditional is. See ``JointGaussian`` for dtypes and gradients.

    Args:
        weights: Component weights, shape (K,), at least 0 and summing to 1 (within 1e-4; they are
            normalised).
        means: Locations, shape (K, D).
        scales: Scale matrices, shape (K, D, D). The covariance is nu / (nu - 2) times as large.
        split: Number of context dimensions, from 1 to D - 1.
        df: Degrees of freedom, above 0: shape (K,) if ``coupling`` is "joint", (K, 2), the
            context's and the residual's, if it is "independent".
        scale_tril: In the place of ``scales``, their lower Cholesky factors.
        coupling: "joint" or "independent".
        power: With ``coupling`` "independent", the factor on the residual's squared scale is
            ((1 + a) / (1 + ``split``)) ** ``power`` at a squared Mahalanobis distance a of the
            context. Default: 0, the context's distance does not matter.
        validate_args: Whether to check the values, which makes a GPU wait.

    Raises:
        ValueError: If a shape, dtype, value or ``split`` does not fit.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> z_c = torch.randn(1000, 2)
        >>> z_t = z_c + torch.distributions.StudentT(5.0).sample((1000, 1)) * torch.randn(1000, 2)
        >>> mixture = JointStudentTMixture.fit(z_c, z_t, 1, coupling="independent")
        >>> mixture.condition(z_c[:8]).log_prob(z_t[:8]).shape
        torch.Size([8])
    """

    df: Tensor
    power: Tensor

    @ordinary_tensors()
    def __init__(
        self,
        weights: Tensor,  # shape: (K,)
        means: Tensor,  # shape: (K, D)
        scales: Tensor | None = None,  # shape: (K, D, D)
        split: int | None = None,
        *,
        df: Tensor,  # shape: (K,) | (K, 2)
        scale_tril: Tensor | None = None,  # shape: (K, D, D)
        coupling: str = "joint",
        power: float = 0.0,
        validate_args: bool = True,
    ) -> None:
        super().__init__()
        check_choice("coupling", coupling, _COUPLINGS)
        if check_number("power", power) != 0 and coupling == "joint":
            raise ValueError(f"power must be 0 with coupling='joint', got {power}.")
        self.coupling = coupling
        check_weights(weights, means, validate_values=validate_args)
        given, kind = check_parameters(
            means, scales, scale_tril, names=("means", "scales"), validate_values=validate_args
        )
        if kind is not Full or len(given) != len(means):
            raise ValueError(
                f"scales must have shape {(*means.shape, means.shape[1])}, "
                f"got {tuple(given.shape)}."
            )
        check_df(df, len(means), coupling, validate_values=validate_args)
        dtype = wide_dtype(weights, means, given, df)
        self.register_buffer("log_weights", log_weights_of(weights.to(dtype)))
        self.register_buffer("df", df.to(dtype, copy=True))
        self.register_buffer("power", torch.tensor(power, dtype=dtype, device=means.device))
        self.components = JointGaussian(
            means.to(dtype), scales, split, scale_tril=scale_tril, validate_args=False
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
        coupling: str = "joint",
        df_range: tuple[float, float] = (1.0, 200.0),
        max_steps: int = 100,
        tolerance: float = 1e-3,
        covariance_floor: float = 1e-6,
        generator: Generator | None = None,
    ) -> JointStudentTMixture:
        """Fits a mixture by expectation maximisation, from a k-means++ start.

        Rows count the less for a component's location and scale matrix the further out they are.

        Args:
            z_c: Context embeddings, shape (N, split), N >= 2.
            z_t: Target embeddings, shape (N, D - split).
            num_components: K, from 1 to N.
            coupling: "joint" or "independent".
            df_range: Bounds of the degrees of freedom; equal bounds fix them.
            max_steps: Largest number of EM steps.
            tolerance: EM stops when a step gains less than this in mean log-likelihood, in nats.
                Degrees of freedom gain little and move last: 1e-6 where they matter themselves.
            covariance_floor: Share of the embeddings' own covariance that every step adds to the
                scale matrices, as in ``JointGaussianMixture.fit``.
            generator: Source of the start's randomness. Default: torch's CPU generator.

        Returns:
            The mixture after the last step, without a gradient. The steps are taken in float64,
            whatever the mixture comes out in.

        Raises:
            ValueError: If a shape, dtype or option does not fit, a value is not finite, there are
                fewer rows than components, or all rows are equal.
        """
        check_choice("coupling", coupling, _COUPLINGS)
        check_options("full", max_steps, tolerance, covariance_floor)
        low, high = (check_positive("df_range", bound) for bound in df_range)
        if low > high:
            raise ValueError(f"df_range must be two bounds, the smaller first, got {df_range}.")
        narrow = join_views(z_c, z_t)
        dtype, z, split = narrow.dtype, narrow.double(), z_c.shape[1]
        check_enough(z, num_components)
        with torch.autocast(device_type=z.device.type, enabled=False):
            floor = floor_of(z, covariance_floor, "full", dtype)
            responsibilities = assign_to_nearest(z, kmeans_plus_plus(z, num_components, generator))
            parts = 1 if coupling == "joint" else 2
            df = z.new_full((num_components, parts), min(max(_START_DF, low), high))
            precisions = z.new_ones(()).expand(*responsibilities.shape, parts)
            previous = -torch.inf
            for _ in range(max_steps):
                means, factors = m_step(z, responsibilities, precisions, floor, split)
                mixture = cls(
                    responsibilities.mean(dim=0),
                    means,
                    split=split,
                    df=df.squeeze(1),
                    scale_tril=factors,
                    coupling=coupling,
                    validate_args=False,
                )
                apart = mixture._distances(z)
                joint = mixture._joint_log_prob(apart)
                likelihood = float(joint.logsumexp(dim=1).mean())
                if likelihood - previous < tolerance:
                    break
                previous = likelihood
                responsibilities = joint.softmax(dim=1)
                precisions = (df + mixture._dims) / (df + apart)
                df = updated_df(df, mixture._dims, responsibilities, precisions, (low, high))
        return mixture.to(dtype)

    @ordinary_tensors()
    @torch.no_grad()
    def calibrated(
        self,
        z_c: Tensor,  # shape: (N, split)
        z_t: Tensor,  # shape: (N, D - split)
    ) -> JointStudentTMixture:
        """The same density with residuals as wide as those of pairs that it was not fitted to.

        Residuals are smaller where a density was fitted, the more so the more components it has,
        and wider for contexts that are far out. Three numbers of highest likelihood mend both: a
        factor on the residual's scale, its degrees of freedom (from 1 to 200), and ``power``, the
        same for all components. Regions of highest conditional density then hold what they should.

        Args:
            z_c: Context embeddings, shape (N, split), N >= 2; neither the density nor, if it can
                be had, the encoders have seen them.
            z_t: Target embeddings, shape (N, D - split).

        Returns:
            The calibrated density; this one is left as it is.

        Raises:
            ValueError: If ``coupling`` is "joint", whose scale is the context's already, a shape
                does not fit or a value is not finite.
        """
        if self.coupling == "joint":
            raise ValueError(
                "coupling must be 'independent' to be calibrated: with 'joint' the context sets "
                "the scale."
            )
        check_points("z_c", z_c, self.split)
        check_points("z_t", z_t, self.means.shape[1] - self.split)
        # Buffers with a graph, of parameters given with a gradient, cannot be copied deeply.
        copies = {id(buffer): buffer.detach().clone() for buffer in self.buffers()}
        wide = copy.deepcopy(self, copies).double()
        z = join_views(z_c, z_t).to(wide.means)
        with torch.autocast(device_type=z.device.type, enabled=False):
            scale, df, power = calibration(
                wide._distances(z), wide.log_weights, wide._log_dets, wide.df, wide._dims
            )
        wide.components.factor[:, self.split :, self.split :] *= scale
        wide.df[:, 1] = df
        wide.power.copy_(power)
        return wide.to(self.means.dtype)

    @property
    def scales(self) -> Tensor:  # shape: (K, D, D)
        """Component scale matrices."""
        return self.components.covariance

    def log_prob(
        self,
        z: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (...)
        """Log-density at joint embeddings.

        Args:
            z: Joint embeddings, shape (..., D).

        Returns:
            The log-densities, shape (...); NaN at a NaN.

        Raises:
            ValueError: If the last dimension is not D.
        """
        points = check_points("z", z, self.means.shape[1]).to(self.means.dtype)
        joint = self._joint_log_prob(self._distances(points.reshape(-1, points.shape[-1])))
        return joint.logsumexp(dim=1).reshape(z.shape[:-1])

    def marginal(self, view: str) -> MixtureSameFamily:
        """The density of one view.

        Args:
            view: "context" or, if ``coupling`` is "joint", "target".

        Returns:
            A mixture of ``MultivariateStudentT`` with the same weights. It checks no values.

        Raises:
            ValueError: If ``view`` is neither, or the target's has no closed form.
        """
        if view == "target" and self.coupling == "independent":
            raise ValueError(
                "view must be 'context': with coupling='independent' the target's density has no "
                "closed form; draw from sample() or fit with coupling='joint'."
            )
        gaussian: Any = self.components.marginal(view)
        components = MultivariateStudentT(self._df[:, 0], gaussian.loc, gaussian.scale_tril)
        return mixture_of(self.log_weights, components)

    def condition(
        self,
        z_c: Tensor,  # shape: (..., split)
    ) -> MixtureSameFamily:
        """The density of the target given the context.

        Args:
            z_c: Context embeddings, shape (..., split).

        Returns:
            A mixture of ``MultivariateStudentT``, of batch shape (...), over the target
            dimensions. Its weights are the components' responsibilities for the context. With
            ``coupling`` "joint" their degrees of freedom are nu + ``split``, and their scales grow
            with the context's distance (Kotz and Nadarajah 2004, Sec. 1.11); it checks no values.

        Raises:
            ValueError: If the last dimension is not ``split``.
        """
        points = check_points("z_c", z_c, self.split).to(self.means.dtype).unsqueeze(-2)
        factor, df = self.components.held.block(slice(self.split)).factor, self._df
        apart = distances(self.means[:, : self.split], factor, points)
        log_probs = log_density(apart, log_det(factor), df[:, 0], self.split)
        df = df[:, -1]
        if self.coupling == "joint":
            scale = ((df + apart) / (df + self.split)).sqrt()
            df = df + self.split
        else:
            scale = (0.5 * self.power * log_distance(apart, self.split)).exp()
        loc = self.components.condition(points).mean
        factor = self.components.held.block(slice(self.split, None)).factor
        components = MultivariateStudentT(df, loc, factor, scale)
        return mixture_of(self.log_weights + log_probs, components)

    def _widths(self, components: Any) -> Tensor:  # shape: (..., K)
        if bool((components.df <= 2).any()):
            raise ValueError(
                "moments need more than 2 degrees of freedom given the context, got "
                f"{float(components.df.min()):g}: fit with df_range=(2.1, 200.0), say."
            )
        widths: Tensor = components.scale.square() * components.df / (components.df - 2)
        return widths

    def _noise(
        self,
        component: Tensor,  # shape: (N,)
        generator: Generator | None,
    ) -> Tensor:  # shape: (N, D)
        noise = super()._noise(component, generator)
        tails = heavy_tails(self._df[component], generator)
        noise = noise * tails.repeat_interleave(self._dims, dim=1)
        apart = noise[:, : self.split].square().sum(dim=1, keepdim=True)
        noise[:, self.split :] *= (0.5 * self.power * log_distance(apart, self.split)).exp()
        return noise

    @property
    def _df(self) -> Tensor:  # shape: (K, 1) | (K, 2)
        """Degrees of freedom of each part of the dimensions that has a scale of its own."""
        return self.df.reshape(len(self.df), -1)

    @property
    def _dims(self) -> Tensor:  # shape: (1,) | (2,)
        """Dimensions of the parts."""
        dim = self.means.shape[1]
        dims = [dim] if self.coupling == "joint" else [self.split, dim - self.split]
        return torch.tensor(dims, device=self.means.device)

    def _parts(
        self,
        values: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (..., 1) | (..., 2)
        """Sums over the parts."""
        parts = torch.split(values, self._dims.tolist(), dim=-1)
        return torch.stack([part.sum(dim=-1) for part in parts], dim=-1)

    def _distances(
        self,
        z: Tensor,  # shape: (N, D)
    ) -> Tensor:  # shape: (N, K, 1) | (N, K, 2)
        """Squared Mahalanobis distances within the parts, the residual's given the context."""
        found = [
            self._parts(whiten(factor, z - mean).square())
            for mean, factor in zip(self.means, self.components.factor, strict=True)
        ]
        return torch.stack(found, dim=1)

    def _joint_log_prob(
        self,
        distances: Tensor,  # shape: (N, K, 1) | (N, K, 2)
    ) -> Tensor:  # shape: (N, K)
        """Log of each component's weight and density."""
        return self.log_weights + joint_log_density(
            distances, self._log_dets, self._df, self._dims, self.power
        )

    @property
    def _log_dets(self) -> Tensor:  # shape: (K, 1) | (K, 2)
        """Log-determinants of the parts' scale matrices."""
        return 2.0 * self._parts(self.components.factor.diagonal(dim1=-2, dim2=-1).log())
