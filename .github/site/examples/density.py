"""The joint density of two views' embeddings, on top of a frozen timm backbone."""

import timm
import torch
from digits import Digits
from lightly.transforms.simclr_transform import SimCLRTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gmje_plugin import JointGaussian, JointGaussianMixture


@torch.no_grad()
def embed(backbone: nn.Module, dim: int) -> tuple[Tensor, Tensor]:
    """Embeddings of two views of each image, whitened to dim features, shapes (N, dim)."""
    transform = SimCLRTransform(input_size=32, cj_prob=0.0, min_scale=0.5, gaussian_blur=0.0)
    loader = DataLoader(Digits(transform, size=1797), batch_size=128)
    batches = [(backbone(x0), backbone(x1)) for (x0, x1), _ in loader]
    features = torch.cat([torch.cat(view) for view in zip(*batches, strict=True)])  # (2 N, D)
    features = features - features.mean(dim=0)
    _, scales, axes = torch.pca_lowrank(features, q=dim)
    z_c, z_t = (features @ axes / scales * len(features) ** 0.5).chunk(2)
    return z_c, z_t


if __name__ == "__main__":
    torch.manual_seed(0)
    # Random weights here; with pretrained=True any model of timm's downloads its own.
    backbone = timm.create_model("test_vit", num_classes=0, img_size=32, patch_size=8).eval()
    z_c, z_t = embed(backbone, dim=8)
    fit, held_out = slice(0, 1200), slice(1200, None)

    gaussian = JointGaussian.fit(z_c[fit], z_t[fit])
    mixture = JointGaussianMixture.fit(z_c[fit], z_t[fit], num_components=4)

    pairs = torch.cat([z_c, z_t], dim=1)[held_out]
    strangers = torch.cat([z_c, z_t.roll(1, dims=0)], dim=1)[held_out]
    for name, density in {"one Gaussian": gaussian, "a mixture of 4": mixture}.items():
        own, other = density.log_prob(pairs).mean(), density.log_prob(strangers).mean()
        print(f"{name}: held-out log-density {own:.2f}, of views of two images {other:.2f}")

    predicted, within, between = mixture.moments(z_c[held_out])  # of the target given the context
    error, spread = (predicted - z_t[held_out]).square().mean(), z_t[held_out].square().mean()
    print(f"squared error of the predicted target {error:.2f}, of the mean {spread:.2f}")
    shares = [part.diagonal(dim1=1, dim2=2).mean() for part in (within, between)]
    print(f"variance within the components {shares[0]:.2f}, between them {shares[1]:.2f}")
    print(f"mutual information of the views {mixture.mutual_information().value:.2f} nats")
