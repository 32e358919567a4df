"""Statistical dependence of the two views, by kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from gmje_plugin.distributed import gather_rows, require_distributed
from gmje_plugin.kernels import check_kernel, gram, median_distance
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import check_pair, check_positive, takes_lightly_names, wide_dtype


class HSICLoss(ShowsOptions):
    """Minus the dependence of two views by the Hilbert-Schmidt independence criterion.

        HSIC(0, 1) = tr(K_0 H K_1 H) / (B - 1)^2,   H = I - 1 1^T / B   (Huang 2026, Eq. 83),

    with K_0, K_1 the kernel matrices of the views (Gretton et al. 2005). The loss is minus

        HSIC(0, 1) / sqrt(HSIC(0, 0) HSIC(1, 1)),

    the cosine between the centred kernel matrices, in [0, 1] (kernel alignment, Cortes et al. 2012;
    CKA, Kornblith et al. 2019): HSIC itself falls as 1/d, with a gradient too small to train by. It
    is 0 where one of the views is constant and falls as they come to depend on each other, so it
    needs neither negatives nor a momentum encoder. H is never built: centring costs O(B^2), the
    kernels O(B^2 d). The loss is computed in float32 under autocast, in float64 for float64
    embeddings.

    The optional log-determinant of the marginals (App. I.4) is
    ``GJEEntropyLoss(alignment_weight=0.0)``, added to it.

    A fixed width and free encoders find a scale that raises HSIC; the median heuristic takes the
    scale out, as L2-normalised embeddings do.

    Attributes:
        kernel: "rbf" or "linear".
        length_scale: Width of the RBF kernels. Default: None, for each view the median distance of
            its batch, without a gradient.
        normalized: Whether HSIC is divided so; False is the paper's objective. Default: True.
        gather_distributed: Whether the batch is that of all ranks.
        terms: After a forward pass, the detached ``hsic`` of Eq. 83.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import HSICLoss
        >>> criterion = HSICLoss()  # was: NTXentLoss()
        >>> loss = criterion(torch.randn(256, 128), torch.randn(256, 128))
    """

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        length_scale: float | None = None,
        normalized: bool = True,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        require_distributed(gather_distributed)
        self.kernel = check_kernel(kernel)
        if length_scale is not None:
            check_positive("length_scale", length_scale)
        self.length_scale = length_scale
        self.normalized = normalized
        self.gather_distributed = gather_distributed
        self.terms: dict[str, Tensor] = {}

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, d_0)
        out1: Tensor,  # shape: (B, d_1)
    ) -> Tensor:  # shape: ()
        """The loss of a batch of B >= 2 pairs.

        Args:
            out0: Embeddings of the first views, shape (B, d_0), as given.
            out1: Embeddings of the second views, shape (B, d_1), as given.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1, min_rows=2, same_dim=False)
        dtype = wide_dtype(out0, out1)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z0, z1 = out0.to(dtype), out1.to(dtype)
            if self.gather_distributed:
                z0, z1 = gather_rows(z0), gather_rows(z1)
            (first, norm0), (second, norm1) = self._centred_gram(z0), self._centred_gram(z1)
            # tr(K_0 H K_1 H) is the sum of the entries of H K_0 H and H K_1 H multiplied.
            product = (first * second).sum()
            hsic = product / (len(z0) - 1) ** 2
            loss = -product / (norm0 * norm1) if self.normalized else -hsic
        self.terms = {"hsic": hsic.detach()}
        return loss

    def _centred_gram(self, z: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (B, B), ()
        """H K H and its norm, which is bounded from below by the rounding error of a constant z."""
        width: float | Tensor = 1.0
        scale = z.new_ones(())
        if self.kernel == "rbf":
            width = median_distance(z) if self.length_scale is None else self.length_scale
        else:
            scale = z.detach().square().sum()
            z = z - z.mean(dim=0)  # H K H is the same, without the cancellation of large means
        kernel_values = gram(z, z, kernel=self.kernel, length_scale=width)
        means = kernel_values.mean(dim=0)
        centred = kernel_values - means - means[:, None] + means.mean()
        eps, tiny = torch.finfo(z.dtype).eps, torch.finfo(z.dtype).tiny
        floor = (eps * scale).clamp_min(tiny**0.25)
        return centred, torch.maximum(torch.linalg.matrix_norm(centred), floor)
