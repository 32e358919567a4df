"""Views: equal to torchvision's transforms, and a function of seed, epoch, index and view alone."""

import math
from itertools import combinations, permutations

import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.transforms import SimCLRTransform
from scipy import stats
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop

from harness import image_ops, views
from harness.keyed_random import keyed_uniforms
from harness.settings import ViewSettings
from harness.views import (
    Draws,
    ProbeView,
    Views,
    augment,
    crop_boxes,
    jitter_factors,
    normalize,
    to_pixels,
)
from tests.harness.commands import settings as composed

PRESETS = {"digits": 1, "mnist_paper": 1, "simclr_paper": 3, "lightly": 3}  # channels
COUNT = 24  # images
# PIL's grays take 0.299 of the red, as ours do; torchvision's of tensors take 0.2989, so that
# their grays are 1e-4 too dark, which the next changes amplify.
GRAY_TOLERANCE = 1e-3


STRENGTHS = {name: composed(f"data/views={name}").data.views for name in PRESETS}


def pictures(channels: int, *, count: int = COUNT, size: int = 32, seed: int = 0) -> Tensor:
    """Random uint8 images with edges, flat areas and gray pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    smooth[:, :, : size // 4] = smooth[:, :1, : size // 4]
    return (255 * smooth).round().to(torch.uint8)


def unit(channels: int) -> dict[str, Tensor]:
    return {"mean": torch.full((channels,), 0.4), "std": torch.full((channels,), 0.3)}


# --- random numbers ---------------------------------------------------------------------------


def splitmix(state: int) -> int:
    """The finaliser in unbounded integers (Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=3), st.integers(0, 2**40))
def test_uniforms_are_splitmix(key: list[int], index: int) -> None:
    weyl = 0x9E3779B97F4A7C15
    state = 0
    for part in key:
        state = splitmix((state + part + weyl) % 2**64)
    row = splitmix((state + index * weyl) % 2**64)
    expected = [(splitmix((row + place * weyl) % 2**64) >> 40) * 2.0**-24 for place in range(3)]
    assert keyed_uniforms(tuple(key), torch.tensor([index]), count=3)[0].tolist() == expected


def test_uniforms_are_uniform_and_independent() -> None:
    # A fixed key: it passes or fails for good; at these levels one key in a thousand fails.
    epoch = keyed_uniforms((1, 2), torch.arange(20_000), count=4).double()
    other = keyed_uniforms((1, 3), torch.arange(20_000), count=4).double()
    for column in epoch.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    together = torch.cat([epoch, other], dim=1)
    together = torch.cat([together[1:], together[:-1]], dim=1)  # neighbours, too
    correlations = torch.corrcoef(together.T) - torch.eye(16)
    assert correlations.abs().max() < 5 / math.sqrt(20_000)


# --- a function of seed, epoch, index and view --------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=2 * COUNT), st.integers(0, 999))
def test_views_do_not_depend_on_the_batch(name: str, chosen: list[int], epoch: int) -> None:
    channels = PRESETS[name]
    make = Views(STRENGTHS[name], **unit(channels), seed=3)
    images, indices = pictures(channels), torch.arange(COUNT) + 1000
    subset = torch.tensor(chosen)
    every = make(images, indices, epoch=epoch)
    some = make(images[subset], indices[subset], epoch=epoch)
    for whole, part in zip(every, some, strict=True):
        assert torch.equal(whole[subset], part)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(COUNT)), st.integers(1, COUNT))
def test_the_probe_view_does_not_depend_on_the_batch(order: list[int], size: int) -> None:
    make = ProbeView(**unit(3), seed=3)
    images, indices = pictures(3), torch.arange(COUNT)
    subset = torch.tensor(order[:size])
    whole = make(images, indices, epoch=2)
    assert torch.equal(whole[subset], make(images[subset], subset, epoch=2))


@pytest.mark.parametrize("name", PRESETS)
def test_chunks_for_the_cache_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, indices = pictures(PRESETS[name]), torch.arange(COUNT)
    make = Views(STRENGTHS[name], **unit(PRESETS[name]), seed=3)
    whole = make(images, indices, epoch=0)
    monkeypatch.setattr(views, "_CHUNK", 7 * images[0].numel())
    for one, other in zip(whole, make(images, indices, epoch=0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", PRESETS)
def test_seed_epoch_index_and_view_each_change_every_image(name: str) -> None:
    images, indices = pictures(PRESETS[name], count=1).repeat(8, 1, 1, 1), torch.arange(8)
    first, second = Views(STRENGTHS[name], **unit(PRESETS[name]), seed=3)(images, indices, epoch=0)
    of_epoch, _ = Views(STRENGTHS[name], **unit(PRESETS[name]), seed=3)(images, indices, epoch=1)
    of_seed, _ = Views(STRENGTHS[name], **unit(PRESETS[name]), seed=4)(images, indices, epoch=0)
    for other in (second, of_epoch, of_seed, first.roll(1, dims=0)):
        assert ((first - other).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_more_than_two_views_are_functions_of_each_image_too() -> None:
    images, indices = pictures(3), torch.arange(COUNT)
    make = Views(STRENGTHS["simclr_paper"], **unit(3), seed=3)
    whole = make(images, indices, epoch=0, count=4)
    part = make(images[5:9], indices[5:9], epoch=0, count=4)
    for view, again in zip(whole, part, strict=True):
        assert view.shape == images.shape
        assert torch.equal(view[5:9], again)
    for one, other in combinations(whole, 2):
        assert ((one - other).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    Views(STRENGTHS["simclr_paper"], **unit(3), seed=1)(pictures(3), torch.arange(COUNT), epoch=0)
    ProbeView(**unit(3), seed=1)(pictures(3), torch.arange(COUNT), epoch=0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views() -> None:
    make = Views(STRENGTHS["simclr_paper"], **unit(3), seed=1)
    here = make(pictures(3), torch.arange(COUNT), epoch=0)
    there = make(pictures(3).cuda(), torch.arange(COUNT), epoch=0)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one, other.cpu(), atol=1e-4, rtol=0.0)


# --- torchvision's pixels for given parameters --------------------------------------------------


def drawn(count: int, key: int = 0) -> Draws:
    return Draws.of(keyed_uniforms((key,), torch.arange(count), count=views._COUNT))


@pytest.mark.parametrize("size", [8, 32, 45])
def test_crops_have_torchvisions_pixels(size: int) -> None:
    pixels = pictures(3, size=size).float() / 255
    boxes = crop_boxes(drawn(COUNT).crop, size, size, least_area=0.08)
    flipped = torch.arange(COUNT) % 2 == 0
    cropped = image_ops.resized_crop(pixels, boxes, flipped)
    for image, box, flip, got in zip(pixels, boxes.int().tolist(), flipped, cropped, strict=True):
        expected = TF.resized_crop(image, *box, [size, size], antialias=True)
        expected = TF.hflip(expected) if flip else expected
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=0.0)


def test_rotations_have_torchvisions_pixels() -> None:
    pixels = pictures(1).float() / 255
    angle = torch.linspace(-170, 170, COUNT)
    zero = torch.zeros(COUNT)
    still = {"translate": torch.zeros(COUNT, 2), "scale": zero + 1, "shear": zero}
    rotated = image_ops.affine(pixels, angle=angle.deg2rad(), **still)
    for image, degrees, got in zip(pixels, angle.tolist(), rotated, strict=True):
        expected = TF.rotate(image, degrees, TF.InterpolationMode.BILINEAR)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ({"scale": 1.3}, {"scale": 1.3}),
        ({"scale": 0.7}, {"scale": 0.7}),
        ({"translate": [-3 / 32, 2 / 32]}, {"translate": [-3, 2]}),
        ({"shear": math.tan(math.radians(12))}, {"shear": [12.0, 0.0]}),
    ],
    ids=["larger", "smaller", "translated", "sheared"],
)
def test_affine_maps_have_torchvisions_pixels(own: dict, theirs: dict) -> None:
    pixels = pictures(3).float() / 255
    still = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": 0.0}
    maps = {name: torch.tensor([value] * COUNT) for name, value in {**still, **own}.items()}
    moved = image_ops.affine(pixels, **maps)
    options = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **theirs}
    expected = TF.affine(pixels, **options, interpolation=TF.InterpolationMode.BILINEAR)
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0.0)


def jittered_by_torchvision(image: Tensor, factors: list[float], order: list[int]) -> Tensor:
    changes = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for kind in order:
        image = changes[kind](image, factors[kind])
    return image


@pytest.mark.parametrize("strength", ["simclr_paper", "lightly"])
def test_jitter_has_torchvisions_pixels_in_every_order(strength: str) -> None:
    orders = torch.tensor(list(permutations(range(4))))
    pixels = pictures(3, count=len(orders)).float() / 255
    swings = 2 * drawn(len(orders)).swings - 1
    factors = jitter_factors(swings, STRENGTHS[strength])
    jittered = image_ops.color_jitter(pixels, factors, orders)
    for image, factor, order, got in zip(pixels, factors, orders, jittered, strict=True):
        expected = jittered_by_torchvision(image, factor.tolist(), order.tolist())
        torch.testing.assert_close(got, expected, atol=GRAY_TOLERANCE, rtol=0.0)


def test_hue_of_primary_colours() -> None:
    colours = torch.tensor(
        [[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0.5, 0.5, 0.5]]
    )[:, :, None, None]
    turned = image_ops.shift_hue(colours, torch.full((7,), 1 / 6))
    expected = torch.cat([colours[1:6], colours[:1], colours[6:]])
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0.0)


def test_grayscale_images_have_neither_saturation_nor_hue() -> None:
    pixels = pictures(1).float() / 255
    factors = torch.tensor([1.0, 1.0, 0.3, 0.4]).expand(COUNT, -1)
    order = torch.arange(4).expand(COUNT, -1)
    torch.testing.assert_close(image_ops.color_jitter(pixels, factors, order), pixels)


def test_the_whole_recipe_has_torchvisions_pixels() -> None:
    strength = STRENGTHS["simclr_paper"]
    pixels, draws = pictures(3).float() / 255, drawn(COUNT, key=5)
    boxes = crop_boxes(draws.crop, 32, 32, least_area=strength.crop_min).int().tolist()
    factors = jitter_factors(2 * draws.swings - 1, strength).tolist()
    orders = draws.order.argsort(dim=1).tolist()
    for n, got in enumerate(augment(pixels, draws, strength)):
        expected = TF.resized_crop(pixels[n], *boxes[n], [32, 32], antialias=True)
        if draws.flip[n] < strength.flip:
            expected = TF.hflip(expected)
        if draws.jitter[n] < strength.jitter:
            expected = jittered_by_torchvision(expected, factors[n], orders[n])
        if draws.grayscale[n] < strength.grayscale:
            expected = TF.rgb_to_grayscale(expected, num_output_channels=3)
        torch.testing.assert_close(got, expected, atol=GRAY_TOLERANCE, rtol=0.0)


def test_probe_crops_have_torchvisions_pixels() -> None:
    images = pictures(3)
    draws = keyed_uniforms((1, 0, views._PROBE), torch.arange(COUNT), count=3)
    seen = ProbeView(**unit(3), seed=1)(images, torch.arange(COUNT), epoch=0)
    for image, draw, got in zip(images, draws.tolist(), seen, strict=True):
        top, left = (int(9 * value) for value in draw[:2])
        expected = TF.crop(TF.pad(image, [4]), top, left, 32, 32)
        expected = TF.hflip(expected) if draw[2] < 0.5 else expected
        assert torch.equal(got, normalize(to_pixels(expected[None]), **unit(3))[0])


def test_pixels_are_normalised() -> None:
    expected = TF.normalize(pictures(3).float() / 255, [0.4] * 3, [0.3] * 3)
    torch.testing.assert_close(normalize(to_pixels(pictures(3)), **unit(3)), expected)


# --- torchvision's distributions ----------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 48)])
@pytest.mark.parametrize("least", [0.08, 0.6])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, least: float) -> None:
    # Fixed seeds: these pass for good; of other seeds about one in a thousand would not.
    count = 4000
    own = crop_boxes(drawn(count).crop, height, width, least_area=least)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(1, height, width)
        theirs = torch.tensor(
            [
                RandomResizedCrop.get_params(image, [least, 1.0], [3 / 4, 4 / 3])
                for _ in range(count)
            ],
            dtype=torch.float64,
        )
    assert (own[:, :2] >= 0).all()
    assert (own[:, 0] + own[:, 2] <= height).all()
    assert (own[:, 1] + own[:, 3] <= width).all()
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] + box[:, 2] / 2,
        lambda box: box[:, 1] + box[:, 3] / 2,
    ):
        assert stats.ks_2samp(measure(own), measure(theirs)).pvalue > 1e-4


@pytest.mark.parametrize(("height", "width"), [(4, 40), (40, 4), (5, 61)])
def test_where_no_box_fits_torchvisions_largest_is_taken(height: int, width: int) -> None:
    own = crop_boxes(drawn(COUNT).crop, height, width, least_area=1.0)
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        theirs = RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])
    assert own.tolist() == [list(theirs)] * COUNT


def test_jitter_is_distributed_as_torchvisions() -> None:
    # Fixed seeds: these pass for good; of other seeds about one in a thousand would not.
    count = 4000
    strength = STRENGTHS["simclr_paper"]
    draws = drawn(count, key=7)
    own = jitter_factors(2 * draws.swings - 1, strength)
    transform = ColorJitter(0.4, 0.4, 0.4, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [
            ColorJitter.get_params(
                transform.brightness, transform.contrast, transform.saturation, transform.hue
            )
            for _ in range(count)
        ]
    for kind in range(4):
        values = [float(params[1 + kind]) for params in theirs]
        assert stats.ks_2samp(own[:, kind], values).pvalue > 1e-4
    orders = draws.order.argsort(dim=1) @ torch.tensor([64, 16, 4, 1])
    found, counts = torch.unique(orders, return_counts=True)
    assert len(found) == 24
    assert stats.chisquare(counts).pvalue > 1e-4
    for chances, share in ((draws.jitter, 0.8), (draws.flip, 0.5), (draws.grayscale, 0.2)):
        hits = int((chances < share).sum())
        assert stats.binomtest(hits, count, share).pvalue > 1e-4


def test_the_probe_shifts_evenly() -> None:
    # A fixed seed; of others one in ten thousand would fail.
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 255
    count = 4000
    seen = ProbeView(mean=torch.zeros(1), std=torch.ones(1), seed=2)(
        image.expand(count, -1, -1, -1), torch.arange(count), epoch=0
    )
    assert stats.chisquare(seen.sum(dim=(0, 1)).flatten()).pvalue > 1e-4


# --- presets ------------------------------------------------------------------------------------


def test_the_lightly_preset_is_its_simclr_transform() -> None:
    strength = STRENGTHS["lightly"]
    steps = SimCLRTransform(input_size=32, gaussian_blur=0.0).transforms[0].transform.transforms
    named = {type(step).__name__: step for step in steps}
    crop = named["RandomResizedCrop"]
    assert tuple(crop.scale) == (strength.crop_min, 1.0)
    assert tuple(crop.ratio) == pytest.approx(views._RATIOS)
    assert named["RandomHorizontalFlip"].p == strength.flip
    assert named["RandomGrayscale"].p == strength.grayscale
    jitter = named["RandomApply"]
    assert jitter.p == strength.jitter
    [changes] = jitter.transforms
    for kind in ("brightness", "contrast", "saturation"):
        factor = getattr(strength, kind)
        assert tuple(getattr(changes, kind)) == pytest.approx((1 - factor, 1 + factor))
    assert tuple(changes.hue) == pytest.approx((-strength.hue, strength.hue))
    assert named["GaussianBlur"].prob == 0.0


def test_the_default_settings_change_nothing() -> None:
    images = pictures(3)
    first, second = Views(ViewSettings(), **unit(3), seed=0)(images, torch.arange(COUNT), epoch=0)
    assert torch.equal(first, second)
    assert torch.equal(first, normalize(to_pixels(images), **unit(3)))
