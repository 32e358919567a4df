"""Statistical dependence of the two views, by kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmje_plugin.distributed import gather_rows, require_distributed
from gmje_plugin.kernels import check_kernel, gram, median_distance
from gmje_plugin.validation import check_pair, check_positive, wide_dtype


class HSICLoss(nn.Module):
    """Minus the Hilbert-Schmidt independence criterion of two views (Huang 2026, App. I, Eq. 83).

        -tr(K_0 H K_1 H) / (B - 1)^2,   H = I - 1 1^T / B,

    with K_0, K_1 the kernel matrices of the views (Gretton et al. 2005). It is 0 where one of the
    views is constant and falls as they come to depend on each other, so it needs neither negatives
    nor a momentum encoder. H is never built: centring costs O(B^2), the kernels O(B^2 d). The loss
    is computed in float32 under autocast, in float64 for float64 embeddings.

    A fixed width and free encoders find a scale that raises HSIC; the median heuristic takes the
    scale out, as L2-normalised embeddings do.

    Attributes:
        kernel: "rbf" or "linear".
        length_scale: Width of the RBF kernels. Default: None, for each view the median distance of
            its batch, without a gradient.
        gather_distributed: Whether the batch is that of all ranks.

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
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        require_distributed(gather_distributed)
        self.kernel = check_kernel(kernel)
        if length_scale is not None:
            check_positive("length_scale", length_scale)
        self.length_scale = length_scale
        self.gather_distributed = gather_distributed
        self.terms: dict[str, Tensor] = {}

    def forward(
        self,
        out0: Tensor,  # shape: (B, d)
        out1: Tensor,  # shape: (B, d)
    ) -> Tensor:  # shape: ()
        """The loss of a batch of B >= 2 pairs.

        Args:
            out0: Embeddings of the first views, shape (B, d), as given.
            out1: Embeddings of the second views, shape (B, d), as given.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1, min_rows=2)
        dtype = wide_dtype(out0, out1)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z0, z1 = out0.to(dtype), out1.to(dtype)
            if self.gather_distributed:
                z0, z1 = gather_rows(z0), gather_rows(z1)
            # tr(K_0 H K_1 H) = sum of the entries of K_0 and H K_1 H multiplied
            product = (self._gram(z0) * _centre(self._gram(z1))).sum()
            hsic = product / (len(z0) - 1) ** 2
        self.terms = {"hsic": hsic.detach()}
        return -hsic

    def _gram(self, z: Tensor) -> Tensor:  # shape: (B, B)
        width: float | Tensor = 1.0
        if self.kernel == "rbf":
            width = median_distance(z) if self.length_scale is None else self.length_scale
        return gram(z, z, kernel=self.kernel, length_scale=width)


def _centre(
    matrix: Tensor,  # shape: (B, B)
) -> Tensor:  # shape: (B, B)
    """H K H of a symmetric matrix K."""
    means = matrix.mean(dim=0)
    return matrix - means - means[:, None] + means.mean()
