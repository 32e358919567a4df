"""The networks whose features are learned and evaluated.

Each is described by a :class:`Recipe`, plain data that goes into the checkpoint and from there into
what ``python -m harness export`` writes, so that torch, torchvision or timm alone can rebuild it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from harness.settings import (
    BackboneSettings,
    ResNet18Settings,
    SettingsError,
    SmallCNNSettings,
    TimmSettings,
)

# Up to this side an image counts as small: CIFAR, MNIST, Tiny ImageNet.
_SMALL_SIDE = 64
# What models of timm raise when the image or the patch is too small for them.
_TIMM_ERRORS = (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError)

Layer = tuple[str, dict[str, Any]]  # the name of a class of torch.nn, and its arguments


@dataclass(frozen=True)
class Recipe:
    """How to build a network.

    Attributes:
        library: "torch" (the layers in a row), "torchvision" or "timm".
        architecture: The library's name of the model; None for "torch".
        model_args: Arguments of its constructor.
        layers: By dotted name, what takes the place of a layer of the model.
    """

    library: str
    architecture: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)


class Backbone(nn.Module):
    """A network and what one must know to use it.

    Args:
        network: Maps images (B, C, H, W) to features (B, feature_dim).
        recipe: How the network was built.
        input_shape: (C, H, W) of the images it is for.

    Attributes:
        feature_dim: Size of the features.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, *, input_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        # On a CPU core 17 to 29 % less time a step for ResNet-50, MobileNetV3 and RegNetY, 3 % for
        # ResNet-18, none for ConvNeXt and ViT.
        self.network = network.to(memory_format=torch.channels_last)
        self.recipe = recipe
        self.input_shape = input_shape
        # Asked of the network, as timm's names for it differ (a head may keep a hidden layer), and
        # to learn now, and not in the first training step, that the images are too small for it.
        self.network.eval()
        with torch.no_grad():
            self.feature_dim: int = self.network(torch.zeros(1, *input_shape)).shape[1]
        self.network.train()

    def forward(
        self,
        images: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, feature_dim)
        """Features of normalised images."""
        features: Tensor = self.network(images)
        return features

    def description(self) -> dict[str, Any]:
        """What one must know beside the weights, as plain data for a checkpoint."""
        return {
            **asdict(self.recipe),
            "input_shape": list(self.input_shape),
            "feature_dim": self.feature_dim,
        }


def build(settings: BackboneSettings, *, in_channels: int, image_size: tuple[int, int]) -> Backbone:
    """Builds the backbone that the settings name, with weights from torch's global generator.

    Args:
        settings: Of one of the three kinds.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.

    Raises:
        SettingsError: If there is no such model or it cannot take such images.
    """
    shape = (in_channels, *image_size)
    match settings:
        case SmallCNNSettings():
            network, recipe = _small_cnn(in_channels, settings)
        case ResNet18Settings():
            network, recipe = _resnet18(in_channels)
        case TimmSettings():
            return _timm_backbone(settings, shape)
        case _:
            raise SettingsError(f"there is no backbone for {type(settings).__name__}")
    return Backbone(network, recipe, input_shape=shape)


def _small_cnn(in_channels: int, settings: SmallCNNSettings) -> tuple[nn.Module, Recipe]:
    """3 x 3 convolutions with batch norm and ReLU, each twice as wide as the last."""
    layers: list[Layer] = []
    before, after = in_channels, settings.width
    for stride in settings.strides:
        convolution = _three_by_three(before, after, stride=stride)
        layers += [convolution, ("BatchNorm2d", {"num_features": after}), ("ReLU", {})]
        before, after = after, 2 * after
    if settings.pool:
        layers.append(("AdaptiveAvgPool2d", {"output_size": 1}))
    layers.append(("Flatten", {}))
    named = {str(number): layer for number, layer in enumerate(layers)}
    network = nn.Sequential()
    _put_in(network, named)
    return network, Recipe("torch", layers=named)


def _resnet18(in_channels: int) -> tuple[nn.Module, Recipe]:
    """The ResNet-18 of torchvision with the stem for CIFAR: 3 x 3, stride 1, no max-pooling."""
    from torchvision.models import resnet18  # here, as it takes a second to import

    network = resnet18()
    layers: dict[str, Layer] = {
        "conv1": _three_by_three(in_channels, 64),
        "maxpool": ("Identity", {}),
        "fc": ("Identity", {}),
    }
    _put_in(network, layers)
    return network, Recipe("torchvision", "resnet18", layers=layers)


def _timm_backbone(settings: TimmSettings, input_shape: tuple[int, int, int]) -> Backbone:
    """A model of timm; ``small_stem=auto`` takes the stock stem where there is no small one."""
    timm = _import_timm(settings.name)
    stems = [settings.small_stem is True]
    if settings.small_stem == "auto" and max(input_shape[1:]) <= _SMALL_SIDE:
        stems = [True, False]
    for small_stem in stems:
        try:
            network, recipe = _timm_network(timm, settings.name, input_shape, small_stem=small_stem)
            return Backbone(network, recipe, input_shape=input_shape)
        except _TIMM_ERRORS as error:
            problem = error
    why = " ".join(str(problem).split()) or type(problem).__name__
    raise SettingsError(
        f"backbone.name: {settings.name} with small_stem={str(small_stem).lower()} cannot take "
        f"{' x '.join(map(str, input_shape))} images: {why}"
    ) from problem


def _timm_network(
    timm: Any, name: str, input_shape: tuple[int, int, int], *, small_stem: bool
) -> tuple[nn.Module, Recipe]:
    """A model of timm without its classifier, for images of this size.

    timm marks the models that are built for one image size (ViTs, Swin, mixers, ...); they get
    ``img_size``. A small stem keeps more of a small image, in the two cases where what that means
    is clear:

    - The first convolution cuts the image into patches and timm has the argument ``patch_size``
      (ViTs, Swin, ConvNeXt, ...): the largest patch that divides the image and is at most a quarter
      as wide as the model's own.
    - It is a plain convolution of stride 2 in a model of no fixed image size (ResNets, RegNets,
      MobileNets, EfficientNets, ...): 3 x 3 and stride 1; the max-pooling of a ResNet goes.

    Raises:
        ValueError: If a small stem is wanted and it is neither case.
    """
    in_channels, *image_size = input_shape
    args: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels}
    fixed_size = timm.get_pretrained_cfg(name).fixed_input_size
    if fixed_size:
        args["img_size"] = image_size
    network: nn.Module = timm.create_model(name, pretrained=False, **args)
    if not small_stem:
        return network, Recipe("timm", name, args)
    first_name, first = _first_convolution(network)
    if _cuts_patches(network, first):
        args["patch_size"] = _quarter(first.stride[0], image_size)
        network = timm.create_model(name, pretrained=False, **args)
        return network, Recipe("timm", name, args)
    # Only the plain kinds, as others (with standardised weights, say) have no equal in torch.nn;
    # Conv2dSame pads as TensorFlow does, which at stride 1 is the usual way.
    plain = type(first).__name__ in ("Conv2d", "Conv2dSame")
    if fixed_size or not plain or first.stride != (2, 2):
        raise ValueError("it has neither a patch size to set nor a plain first layer of stride 2")
    channels, bias = (first.in_channels, first.out_channels), first.bias is not None
    layers: dict[str, Layer] = {first_name: _three_by_three(*channels, bias=bias)}
    if hasattr(network, "maxpool"):  # what timm calls it in every kind of ResNet
        layers["maxpool"] = ("Identity", {})
    _put_in(network, layers)
    return network, Recipe("timm", name, args, layers)


def _import_timm(name: str) -> Any:
    """timm, known to have a model of this name."""
    try:
        import timm  # here, as it takes seconds to import and few runs need it
    except ImportError as error:
        raise SettingsError("backbone=timm needs timm: pip install 'timm>=1.0.16'") from error
    known = timm.list_models()
    if name not in known:
        untagged = name.partition(".")[0]  # resnet50.a1_in1k names pretrained weights
        close = difflib.get_close_matches(untagged, known, n=3)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise SettingsError(f"backbone.name: timm {timm.__version__} has no model {name!r}{hint}")
    return timm


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The layer that timm says sees the image first, and its name."""
    config: Any = network.pretrained_cfg
    name = config.get("first_conv")
    first = network.get_submodule(name) if isinstance(name, str) else None
    if not isinstance(first, nn.Conv2d):
        raise ValueError("it does not begin with one convolution")
    return name, first


def _cuts_patches(network: nn.Module, first: nn.Conv2d) -> bool:
    """Whether its patches do not overlap and its constructor lets one choose their size."""
    constructors = [inspect.signature(kind) for kind in type(network).__mro__[:-1]]
    takes_patch_size = any("patch_size" in signature.parameters for signature in constructors)
    return takes_patch_size and first.kernel_size == first.stride and first.stride[0] > 1


def _quarter(patch: int, image_size: Sequence[int]) -> int:
    """The largest divisor of both sides that is at most a quarter of the patch (1 if none is)."""
    sizes = range(max(1, patch // 4), 0, -1)
    return next(size for size in sizes if not any(side % size for side in image_size))


def strided_blocks(*channels: int) -> list[nn.Module]:
    """3 x 3 convolutions of stride 2 with batch norm and ReLU, from each number of channels on."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return layers


def _three_by_three(
    in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False
) -> Layer:
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    return "Conv2d", {**channels, "kernel_size": 3, "stride": stride, "padding": 1, "bias": bias}


def _put_in(network: nn.Module, layers: Mapping[str, Layer]) -> None:
    for name, (kind, args) in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, getattr(nn, kind)(**args))
