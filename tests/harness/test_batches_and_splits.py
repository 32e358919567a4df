"""Which images are held out or left out, and in which order training sees the rest."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import data
from harness.data import EpochBatches, ImageSet
from harness.data.batches import drifting_order
from harness.data.splits import held_out_size, imbalanced, some_per_class, split
from harness.settings import DataSettings, ViewSettings
from harness.views import Views
from tests.harness.image_folders import folder_settings, image_folder, refusal

# --- subsets ------------------------------------------------------------------------------------


labels_of_all_classes = st.integers(2, 6).flatmap(
    lambda classes: st.lists(st.integers(0, classes - 1), max_size=60).map(
        lambda drawn: torch.tensor(drawn + list(range(classes)) * 2)
    )
)


@settings(deadline=None)
@given(labels_of_all_classes, st.floats(1.0, 200.0), st.integers(0, 5))
def test_imbalance(labels: Tensor, ratio: float, seed: int) -> None:
    kept = imbalanced(labels, ratio=ratio, seed=seed)
    assert torch.equal(kept, torch.unique(kept))  # sorted, none twice
    smallest, last = int(labels.bincount().min()), int(labels.max())
    expected = [max(1, round(smallest * ratio ** (-k / last))) for k in range(last + 1)]
    assert labels[kept].bincount().tolist() == expected
    assert torch.equal(kept, imbalanced(labels, ratio=ratio, seed=seed))


def test_imbalance_of_a_data_set() -> None:
    loaded = data.load(DataSettings(imbalance=10.0))
    counts = loaded.train.labels.bincount()
    assert counts[0].item() == pytest.approx(10 * counts[-1].item(), rel=0.05)
    assert loaded.variant.endswith(", imbalance 10")
    assert len(loaded.test) == 450  # as ever
    again = data.load(DataSettings(imbalance=10.0))
    other = data.load(DataSettings(imbalance=10.0), seed=1)
    assert torch.equal(loaded.train.images, again.train.images)
    assert not torch.equal(loaded.train.images, other.train.images)


@pytest.mark.parametrize(("images", "held"), [(50_000, 5000), (1347, 270), (10, 2)])
def test_how_many_images_are_held_out(images: int, held: int) -> None:
    assert held_out_size(images) == held


def test_a_split_keeps_the_shares_of_the_classes() -> None:
    labels = torch.arange(1000) % 4
    first, second = split(labels, second=200)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(1000))
    assert labels[second].bincount().tolist() == [50] * 4


def test_a_class_too_small_to_split_is_one_line(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    for n in range(1, 6):
        (root / "train" / "cat" / f"000{n}.png").unlink()
    assert "cannot be split" in refusal(folder_settings(root, split="validation"))


# --- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffled", "class_correlated"])
def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(order: str) -> None:
    labels = torch.arange(100) % 5

    def indices(seed: int, epoch: int) -> Tensor:
        batches = EpochBatches(labels, batch_size=25, seed=seed, order=order)
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches) == 4
        return torch.cat(list(batches))

    first = indices(1, 0)
    assert torch.equal(first.sort().values, torch.arange(100))
    assert torch.equal(first, indices(1, 0))
    assert not torch.equal(first, indices(1, 1))
    assert not torch.equal(first, indices(2, 0))


@pytest.mark.parametrize("count", [160, 167])
def test_in_bursts_an_image_comes_16_times_in_a_row_and_all_come_within_16_epochs(
    count: int,
) -> None:
    batches = EpochBatches(torch.arange(count), batch_size=8, seed=1, order="bursts")
    seen = set()
    for epoch in range(16):
        batches.set_epoch(epoch)
        order = torch.cat(list(batches))
        assert len(order) == 8 * len(batches) == count - count % 8
        assert len(order.unique()) == len(order)  # each with views of its own
        bursts = (order % count).split(16)
        assert all(len(burst.unique()) == 1 for burst in bursts)
        seen |= {int(burst[0]) for burst in bursts}
    assert len(seen) > count - 16  # but for what the last batches left out


def test_an_image_of_a_burst_is_the_same_in_other_views() -> None:
    images = ImageSet(torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8), torch.arange(5))
    pixels, labels, indices = images[torch.tensor([3, 8, 13])]
    assert torch.equal(pixels, images.images[3].expand(3, -1, -1, -1))
    assert labels.tolist() == [3, 3, 3]
    views = Views(ViewSettings(crop_min=0.2), mean=torch.zeros(3), std=torch.ones(3), seed=1)
    first, _ = views(pixels, indices, epoch=0)
    assert not torch.equal(first[0], first[1])


def test_left_over_images_wait() -> None:
    batches = EpochBatches(torch.zeros(10).long(), batch_size=4, seed=0)
    assert [len(batch) for batch in batches] == [4, 4]


@settings(deadline=None)
@given(labels_of_all_classes, st.integers(0, 2**31))
def test_a_drifting_order_is_a_permutation(labels: Tensor, seed: int) -> None:
    order = drifting_order(labels, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(order.sort().values, torch.arange(len(labels)))


def test_neighbouring_batches_of_a_class_correlated_stream_share_classes() -> None:
    # A fixed seed, but any would do: a stretch of 50 images out of 1,000 of each of 10 classes
    # lies within 2 places of the classes' starts, so it holds three classes at most.
    labels = torch.arange(10_000) % 10
    batches = list(EpochBatches(labels, batch_size=50, seed=0, order="class_correlated"))
    classes = [set(labels[batch].tolist()) for batch in batches]
    assert max(map(len, classes)) <= 3
    assert all(one & other for one, other in pairwise(classes))
    shuffled = EpochBatches(labels, batch_size=50, seed=0)
    assert min(len(set(labels[batch].tolist())) for batch in shuffled) > 5


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 2**31)
)
@settings(deadline=None)
def test_few_of_each_class(classes: list[int], count: int, seed: int) -> None:
    labels = torch.tensor(classes)
    kept = some_per_class(labels, [count] * len(set(classes)), seed=seed)
    assert len(kept.unique()) == len(kept)
    for label in set(classes):
        assert (labels[kept] == label).sum() == min(count, classes.count(label))
