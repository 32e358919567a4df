"""The networks: what they give, how their stems fit small images, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness import backbones
from harness.backbones import Backbone
from harness.methods.modules.context import BuildContext
from harness.methods.simclr import SimCLRSettings
from harness.settings import (
    BackboneSettings,
    ResNet18Settings,
    SettingsError,
    SmallCNNSettings,
    TimmSettings,
    TrainerSettings,
    ViewSettings,
)
from harness.views import Views
from tests.harness import commands

_ALL = {
    "small_cnn": (SmallCNNSettings(), 64),
    "resnet18": (ResNet18Settings(), 512),
    "convnext_atto": (TimmSettings(name="convnext_atto"), 320),
    "vit_tiny_patch16_224": (TimmSettings(name="vit_tiny_patch16_224"), 192),
    "mobilenetv3_small_100": (TimmSettings(name="mobilenetv3_small_100"), 1024),
    "regnety_002": (TimmSettings(name="regnety_002"), 368),
    "resnet50": (TimmSettings(name="resnet50"), 2048),
}


def _build(
    settings: BackboneSettings, *, seed: int = 0, channels: int = 3, size: Sequence[int] = (32, 32)
) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return backbones.build(settings, in_channels=channels, image_size=(size[0], size[1]))


def _images(count: int, *, channels: int = 3, size: Sequence[int] = (32, 32)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("settings", "feature_dim"), _ALL.values(), ids=_ALL.keys())
def test_two_steps_of_simclr_move_every_parameter(
    settings: BackboneSettings, feature_dim: int
) -> None:
    backbone = _build(settings)
    assert backbone.feature_dim == feature_dim
    assert backbone.training
    views = Views(ViewSettings(), mean=torch.zeros(3), std=torch.ones(3), seed=0)
    method = SimCLRSettings().build(BuildContext(backbone, None, views, TrainerSettings(), seed=0))
    before = {name: value.detach().clone() for name, value in backbone.named_parameters()}
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(2):
        loss = method.step(_images(8).chunk(2)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    # A bias before a batch norm, say, has no gradient; a whole layer without one would be cut off.
    still = [
        name
        for name, value in backbone.named_parameters()
        if value.ndim > 1 and torch.equal(value, before[name])
    ]
    assert still == []
    assert backbone.eval()(_images(2)).shape == (2, feature_dim)


@pytest.mark.parametrize("settings", [case[0] for case in _ALL.values()], ids=_ALL.keys())
def test_weights_are_a_function_of_the_seed(settings: BackboneSettings) -> None:
    first, same, other = (_build(settings, seed=seed) for seed in (3, 3, 4))
    state = first.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in same.state_dict().items())
    assert any(not torch.equal(value, state[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("settings", [case[0] for case in _ALL.values()], ids=_ALL.keys())
def test_images_of_one_channel_and_28_pixels(settings: BackboneSettings) -> None:
    backbone = _build(settings, channels=1, size=(28, 28)).eval()
    features = backbone(_images(2, channels=1, size=(28, 28)))
    assert features.shape == (2, backbone.feature_dim)
    assert not torch.equal(features[0], features[1])


def test_resnet18_is_the_one_of_the_paper() -> None:
    network = _build(ResNet18Settings()).network
    # torchvision's 11,689,512 without its classifier (513,000) and its 7 x 7 stem for the 3 x 3.
    expected = 11_689_512 - 513_000 - 64 * 3 * (7 * 7 - 3 * 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    sizes: list[torch.Size] = []
    for name in ("layer1", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output: sizes.append(output.shape[1:])
        )
    network(_images(2))
    assert sizes == [(64, 32, 32), (512, 4, 4)]


@pytest.mark.parametrize(
    ("name", "size", "patch"),
    [
        ("vit_tiny_patch16_224", (32, 32), 4),
        ("vit_tiny_patch16_224", (64, 32), 4),
        ("vit_tiny_patch16_224", (30, 30), 3),  # 4 does not divide the image
        ("vit_tiny_patch16_224", (96, 96), 16),  # not a small image
        ("deit_tiny_distilled_patch16_224", (32, 32), 4),  # takes patch_size by its base class
        ("convnext_atto", (32, 32), 1),
        ("convnext_atto", (65, 65), 4),
    ],
)
def test_patches_shrink_with_small_images(name: str, size: tuple[int, int], patch: int) -> None:
    network = _build(TimmSettings(name=name), size=size).network
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.kernel_size == first.stride == (patch, patch)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("mobilenetv3_small_100", "conv_stem"),
        ("tf_efficientnet_b0", "conv_stem"),  # padded as TensorFlow does
        ("regnety_002", "stem.conv"),
        ("resnet26", "conv1"),
    ],
)
def test_first_convolutions_keep_small_images_whole(name: str, stem: str) -> None:
    for small_stem, size, stride in (
        (True, 96, 1),
        ("auto", 64, 1),
        ("auto", 65, 2),
        (False, 64, 2),
    ):
        settings = TimmSettings(name=name, small_stem=small_stem)
        network = _build(settings, size=(size, size)).network
        first = network.get_submodule(stem)
        assert isinstance(first, nn.Conv2d)
        assert first.stride == (stride, stride)
        if stride == 1:
            assert (first.kernel_size, first.padding) == ((3, 3), (1, 1))
            assert isinstance(getattr(network, "maxpool", nn.Identity()), nn.Identity)


@pytest.mark.parametrize(
    "name",
    [
        "gmlp_s16_224",  # timm's own arguments leave no room for a patch size
        "xcit_nano_12_p8_224",  # strided convolutions in a model of fixed size
        "edgenext_xx_small",  # patches without an argument for their size
        "mobileone_s0",  # two first convolutions
    ],
)
def test_small_stem_only_where_it_is_clear_what_that_means(name: str) -> None:
    assert (
        _build(TimmSettings(name=name)).recipe
        == _build(TimmSettings(name=name, small_stem=False)).recipe
    )
    with pytest.raises(SettingsError, match=f"{name} with small_stem=true cannot take 3 x 32 x 32"):
        _build(TimmSettings(name=name, small_stem=True))


def test_images_too_small_for_a_model_are_one_line() -> None:
    with pytest.raises(
        SettingsError, match=r"inception_v3 .* cannot take 3 x 32 x 32 images"
    ) as caught:
        _build(TimmSettings(name="inception_v3"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnext_ato", "did you mean convnext_atto"),
        ("resnet50.a1_in1k", "did you mean resnet50 "),
        ("hf-hub:timm/resnet50", "has no model 'hf-hub:timm/resnet50'$"),  # and asks no network
    ],
)
def test_unknown_name_is_one_line_with_close_matches(name: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=hint) as caught:
        _build(TimmSettings(name=name))
    assert "\n" not in str(caught.value)


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(SettingsError, match="no backbone for BackboneSettings"):
        _build(BackboneSettings(name="small_cnn"))


@pytest.mark.parametrize(
    ("group", "overrides", "expected"),
    [
        ("small_cnn", ["width=8"], SmallCNNSettings(width=8)),
        ("resnet18", [], ResNet18Settings()),
        ("timm", ["name=resnet18"], TimmSettings(name="resnet18")),
        ("timm", ["name=a", "small_stem=true"], TimmSettings(name="a", small_stem=True)),
    ],
)
def test_options_become_settings(
    group: str, overrides: list[str], expected: BackboneSettings
) -> None:
    asked = [f"backbone.{override}" for override in overrides]
    assert commands.settings(f"backbone={group}", *asked).backbone == expected


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # Python's own mark of a failed import
    with pytest.raises(SettingsError, match=r"pip install 'timm>=1\.0\.16'"):
        _build(TimmSettings(name="resnet18"))


def test_the_command_refuses_before_it_writes(tmp_path: Path) -> None:
    run = commands.harness("backbone=timm", "backbone.name=inception_v3", folder=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert "inception_v3 with small_stem=false cannot take 1 x 8 x 8 images" in run.stderr
    assert run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
