"""Gaussian process likelihood of the targets, exact or with random Fourier features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gmje_plugin.density.fitting import join_views
from gmje_plugin.distributed import gather_rows, require_distributed
from gmje_plugin.kernels import (
    check_kernel,
    gram,
    gram_diagonal,
    random_fourier_features,
    random_fourier_frequencies,
)
from gmje_plugin.linalg import LOG_2PI, cholesky, log_det, mahalanobis
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_count,
    check_device,
    check_embeddings,
    check_pair,
    check_positive,
    takes_lightly_names,
    wide_dtype,
)

_FIT = ("fit_inputs", "fit_factor", "fit_weights", "fit_length_scale", "fit_noise")


class GJEDualLoss(ShowsOptions):
    """Negative log-likelihood of the targets under a Gaussian process of the contexts.

    Each of the d target features is a draw of one process with kernel matrix K = k(Z_c, Z_c) +
    noise I (Huang 2026, Sec. 3.1, Eq. 3-4), and the loss is the mean over batch and features,

        1/d { 1/B [ 1/2 tr(Z_t^T K^-1 Z_t) + d/2 log|K| ] + d/2 log 2 pi }.

    Exact (Algorithm 3), it costs O(B^3). With ``num_features`` random Fourier features Phi of size
    D (Algorithm 4, Eq. 66-69) K becomes Phi Phi^T + noise I, is never built, and the loss costs
    O(B D^2 + D^3). With a linear kernel the process is the linear-Gaussian predictor of the primal
    form (App. J), and is worked out as such, with Phi = Z_c, in batches larger than d_c.

    The loss is asymmetric: it takes the targets ``out1`` as given, and with a gradient through
    them encoders lower it by sending targets to zero and then contexts to a constant (App. E).
    Detach them, embeddings of a momentum encoder as in BYOL. Where only ``out1`` has a gradient,
    the two come in the order (target, prediction) that some of lightly's examples have, and are
    taken so. The loss is computed in float32 under autocast, in float64 for float64 embeddings.

    ``fit`` and ``predict`` are Gaussian process regression (Eq. 5). What was fitted is in
    ``state_dict``; the random features are a function of ``seed`` and are not.

    Attributes:
        kernel: "rbf", exp(-||x - y||^2 / (2 length_scale^2)), or "linear", x . y.
        length_scale: Of the RBF kernel; a 0-d tensor if it is learned. Default: 1.
        learn_length_scale: Whether it is a parameter (its logarithm): give it to the optimizer.
        noise: Variance of the targets around the process, sigma^2, above 0; a 0-d tensor if it is
            learned. Default: 0.1.
        learn_noise: Whether it is a parameter (its logarithm), as in App. F.
        num_features: Number D of random Fourier features. Default: None, exact.
        gather_distributed: Whether the batch is that of all ranks.
        seed: Seed of the random features.
        terms: After a forward pass, the detached parts ``data_fit`` and ``log_det``, in nats, both
            for one sample and all of its features.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import GJEDualLoss
        >>> criterion = GJEDualLoss(length_scale=0.5, num_features=512)
        >>> z_c, z_t = torch.randn(256, 8), torch.randn(256, 8)
        >>> loss = criterion(z_c, z_t)
        >>> mean, variance = criterion.fit(z_c, z_t).predict(torch.randn(4, 8))
    """

    fit_inputs: Tensor | None
    fit_factor: Tensor | None
    fit_weights: Tensor | None
    fit_length_scale: Tensor | None
    fit_noise: Tensor | None

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        length_scale: float = 1.0,
        learn_length_scale: bool = False,
        noise: float = 0.1,
        learn_noise: bool = False,
        num_features: int | None = None,
        gather_distributed: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_distributed(gather_distributed)
        self.kernel = check_kernel(kernel)
        check_positive("length_scale", length_scale)
        if num_features is not None:
            check_count("num_features", num_features)
        if kernel == "linear" and (num_features is not None or learn_length_scale):
            raise ValueError(
                "num_features and learn_length_scale are for kernel='rbf'; "
                f"got num_features={num_features}, learn_length_scale={learn_length_scale} "
                "with kernel='linear'."
            )
        self.learn_length_scale = learn_length_scale
        log_length_scale = torch.tensor(math.log(length_scale))
        if learn_length_scale:
            self.log_length_scale = nn.Parameter(log_length_scale)
        else:
            self._length_scale = float(length_scale)
        self.learn_noise = learn_noise
        check_positive("noise", noise)
        if learn_noise:
            self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))
        else:
            self._noise = float(noise)
        self.num_features = num_features
        self.gather_distributed = gather_distributed
        self.seed = check_count("seed", seed, low=0)
        for name in _FIT:
            self.register_buffer(name, None)
        self.terms: dict[str, Tensor] = {}

    @property
    def length_scale(self) -> float | Tensor:
        """Length-scale of the RBF kernel."""
        return self.log_length_scale.exp() if self.learn_length_scale else self._length_scale

    @property
    def noise(self) -> float | Tensor:
        """Variance of the targets around the process."""
        return self.log_noise.exp() if self.learn_noise else self._noise

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, d_c)
        out1: Tensor,  # shape: (B, d_t)
    ) -> Tensor:  # shape: ()
        """The mean negative log-likelihood of a batch of B pairs.

        Args:
            out0: Context embeddings, shape (B, d_c), as given.
            out1: Target embeddings, shape (B, d_t), as given.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1, same_dim=False)
        if out1.requires_grad and not out0.requires_grad:
            out0, out1 = out1, out0
        for parameter in self.parameters():
            check_device("out0", parameter, out0)
        dtype = wide_dtype(out0, out1)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z_c, z_t = out0.to(dtype), out1.to(dtype)
            if self.gather_distributed:
                z_c, z_t = gather_rows(z_c), gather_rows(z_t)
            parts = self._by_features if self._has_features(z_c) else self._by_kernel
            data_fit, half_log_det = (part / len(z_c) for part in parts(z_c, z_t))
            loss = (data_fit + half_log_det) / z_t.shape[1] + 0.5 * LOG_2PI
        self.terms = {"data_fit": data_fit.detach(), "log_det": half_log_det.detach()}
        return loss

    @torch.inference_mode(False)  # what is made under it can be neither loaded into nor trained by
    @torch.no_grad()
    def fit(
        self,
        z_c: Tensor,  # shape: (N, d_c)
        z_t: Tensor,  # shape: (N, d_t)
    ) -> GJEDualLoss:
        """Takes the embeddings that ``predict`` goes by, with the length-scale and noise of now.

        Args:
            z_c: Context embeddings, shape (N, d_c), N >= 2.
            z_t: Target embeddings, shape (N, d_t); ``predict`` returns to 0 far from the contexts,
                so take their mean off if it is not 0.

        Returns:
            This object.

        Raises:
            ValueError: If a shape or dtype does not fit or a value is not finite.
        """
        z = join_views(z_c.clone(), z_t.clone())
        z_c, z_t = z[:, : z_c.shape[1]], z[:, z_c.shape[1] :]
        with torch.autocast(device_type=z_c.device.type, enabled=False):
            length_scale, noise = (
                torch.as_tensor(value, dtype=z_c.dtype, device=z_c.device)
                for value in (self.length_scale, self.noise)
            )
            if self._has_features(z_c):
                features = self._features(z_c, length_scale)
                matrix, right = features.mT @ features, features.mT @ z_t
                self.fit_inputs = z_c[:1].clone()  # for size and dtype alone
            else:
                matrix, right = self._kernel(z_c, z_c, length_scale), z_t
                self.fit_inputs = z_c.clone()
            factor = cholesky(self._with_noise(matrix), name="the kernel matrix")
            self.fit_factor, self.fit_length_scale, self.fit_noise = factor, length_scale, noise
            self.fit_weights = torch.cholesky_solve(right, factor)
        return self

    def predict(
        self,
        z_c: Tensor,  # shape: (B, d_c)
    ) -> tuple[Tensor, Tensor]:  # shapes: (B, d_t), (B,)
        """Mean and variance of the process given the fitted embeddings (Huang 2026, Eq. 5).

        Args:
            z_c: Context embeddings, shape (B, d_c).

        Returns:
            The mean of each target feature and their common variance, without the noise.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If the shape, dtype or device does not fit.
        """
        inputs, factor = self.fit_inputs, self.fit_factor
        weights, length_scale = self.fit_weights, self.fit_length_scale
        noise = self.fit_noise
        if (inputs is None or factor is None or weights is None) or (
            length_scale is None or noise is None
        ):
            raise RuntimeError("GJEDualLoss has no fit to predict from: call fit(z_c, z_t) first.")
        check_embeddings("z_c", z_c, dim=inputs.shape[1])
        check_device("z_c", inputs, z_c)
        z_c = z_c.to(inputs.dtype)
        with torch.autocast(device_type=z_c.device.type, enabled=False):
            if len(inputs) == 1:  # see ``fit``
                features = self._features(z_c, length_scale)
                return features @ weights, noise * mahalanobis(factor, features)
            kernel_values = self._kernel(z_c, inputs, length_scale)
            explained = mahalanobis(factor, kernel_values)
            variance = gram_diagonal(z_c, kernel=self.kernel) - explained
            # The difference can round to below 0 at a fitted point.
            return kernel_values @ weights, variance.clamp_min(0.0)

    def _has_features(self, z_c: Tensor) -> bool:
        """Whether the kernel is taken as products of features.

        Those of a linear one are its inputs. Where they are fewer than the rows, the kernel matrix
        is all but singular, and in float32 rounding is as large as the noise.
        """
        fewer = z_c.shape[1] < len(z_c)
        return self.num_features is not None or (self.kernel == "linear" and fewer)

    def _features(self, x: Tensor, length_scale: float | Tensor) -> Tensor:  # shape: (N, D)
        if self.num_features is None:
            return x
        drawn = random_fourier_frequencies(x.shape[1], self.num_features, seed=self.seed)
        frequencies, phases = (each.to(x) for each in drawn)
        return random_fourier_features(x, frequencies, phases, length_scale=length_scale)

    def _kernel(self, x: Tensor, y: Tensor, length_scale: float | Tensor) -> Tensor:
        return gram(x, y, kernel=self.kernel, length_scale=length_scale)

    def _with_noise(self, matrix: Tensor) -> Tensor:  # shape: (B, B) | (D, D)
        """K = K_cc + noise I of kernel values, C = Phi^T Phi + noise I of features."""
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return matrix + self.noise * eye

    def _by_kernel(self, z_c: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (), ()
        kernel_values = self._kernel(z_c, z_c, self.length_scale)
        factor = cholesky(self._with_noise(kernel_values), name="the kernel matrix")
        data_fit = 0.5 * mahalanobis(factor, z_t.mT).sum()
        return data_fit, 0.5 * z_t.shape[1] * log_det(factor)

    def _by_features(self, z_c: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (), ()
        features = self._features(z_c, self.length_scale)
        batch, size = features.shape
        factor = cholesky(self._with_noise(features.mT @ features), name="the feature matrix")
        weights = torch.cholesky_solve(features.mT @ z_t, factor)
        # Eq. 68 as the minimum of ridge regression, a sum of squares: its difference of two large
        # numbers over a small noise would lose all digits in float32.
        residual = (z_t - features @ weights).square().sum() / self.noise
        data_fit = 0.5 * (residual + weights.square().sum())
        # Eq. 69
        log_noise = self.log_noise if self.learn_noise else math.log(self._noise)
        log_determinant = log_det(factor) + (batch - size) * log_noise
        return data_fit, 0.5 * z_t.shape[1] * log_determinant

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        """Makes room for a fit of any size, or for none; keeps it if the state is of others."""
        if local_metadata or any(name.startswith(prefix) for name in state_dict):
            for name in _FIT:
                saved = state_dict.get(prefix + name)
                setattr(self, name, None if saved is None else torch.empty_like(saved))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
