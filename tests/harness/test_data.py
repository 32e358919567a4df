"""The images, their split and the order in which they come."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from harness.data import EpochBatches, load, train_loader
from harness.settings import DataSettings


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_digits_are_all_there_once_and_stratified() -> None:
    data = load(DataSettings())
    assert (len(data.train), len(data.test)) == (1347, 450)
    both = torch.cat([data.train.images, data.test.images])
    assert both.dtype == torch.uint8
    assert both.shape == (1797, 1, 8, 8)
    assert (both.min(), both.max()) == (0, 255)
    assert rows(both) == rows(torch.tensor(load_digits().images * 255 / 16).round().byte()[:, None])
    shares = [part.labels.bincount() / len(part) for part in (data.train, data.test)]
    torch.testing.assert_close(*shares, rtol=0, atol=2e-3)
    pixels = data.train.images / 255.0
    torch.testing.assert_close(data.mean, pixels.mean().reshape(1))
    torch.testing.assert_close(data.std, pixels.std(correction=0).reshape(1))


def test_validation_is_a_part_of_the_training_images() -> None:
    data, held_out = load(DataSettings()), load(DataSettings(split="validation"))
    assert rows(held_out.train.images) | rows(held_out.test.images) == rows(data.train.images)
    assert not rows(held_out.test.images) & rows(data.test.images)
    assert not rows(held_out.train.images) & rows(held_out.test.images)
    assert "validation" in held_out.variant


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> torch.Tensor:
        batches = EpochBatches(100, batch_size=30, seed=seed)
        batches.set_epoch(epoch)
        return torch.cat(list(batches))

    assert torch.equal(order(1, 5), order(1, 5))
    assert not torch.equal(order(1, 5), order(1, 6))
    assert not torch.equal(order(1, 5), order(2, 5))
    assert len(set(order(1, 5).tolist())) == 90  # three whole batches, no image twice


def test_a_batch_is_images_and_their_indices() -> None:
    train = load(DataSettings()).train
    loader = train_loader(train, batch_size=64, seed=1)
    assert len(loader) == 21
    for images, indices in loader:
        assert torch.equal(images, train.images[indices])


def test_a_copy_elsewhere_holds_the_same() -> None:
    train = load(DataSettings()).train
    moved = train.to(torch.device("meta"))
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert len(moved) == len(train)


@pytest.mark.parametrize("size", [1, 7])
def test_as_many_batches_as_announced(size: int) -> None:
    batches = EpochBatches(20, batch_size=size, seed=0)
    assert len(list(batches)) == len(batches)
