"""Data sets by name: what is read, and what is said when it is missing or damaged."""

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from harness import data
from harness.data import ImageSet, sources
from harness.settings import DataSettings, SettingsError, ViewSettings
from tests.harness import commands
from tests.harness.image_folders import folder_settings, image_folder, refusal, write_images
from tests.harness.tiny_mnist import write_part

CLASSES = [f"class{k}" for k in range(10)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


# --- digits -------------------------------------------------------------------------------------


def test_digits() -> None:
    loaded = data.load(DataSettings())
    assert loaded.train.images.shape == (1347, 1, 8, 8)
    assert loaded.test.images.shape == (450, 1, 8, 8)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.num_classes == 10
    assert (
        loaded.variant
        == "digits of scikit-learn, 8 x 8 pixels: 1347 training images, 450 test images"
    )
    pixels = loaded.train.images / 255.0
    assert loaded.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-5)
    assert loaded.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-5)


def rows(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def test_validation_images_are_held_out_of_the_training_images() -> None:
    whole = data.load(DataSettings())
    held = data.load(DataSettings(split="validation"))
    assert len(held.train) + len(held.test) == len(whole.train)
    assert rows(held.train) | rows(held.test) == rows(whole.train)
    assert held.variant.endswith("1077 training images, 270 validation images")


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (torch.rand(4, 1, 8, 8), torch.arange(4), "images must be uint8 of shape"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), torch.arange(4), r"got torch.uint8 of shape"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(3), r"int64 of shape \(4,\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.ones(4), "got torch.float32"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(1, 5), "must be 0 to K - 1"),
    ],
)
def test_a_new_reader_is_told_what_it_gets_wrong(
    images: torch.Tensor, labels: torch.Tensor, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: DataSettings) -> sources.Sets:
        return ImageSet(images, labels), ImageSet(images, labels), "mine"

    monkeypatch.setitem(sources.READERS, "mine", read)
    with pytest.raises(ValueError, match=told):
        data.load(DataSettings(name="mine"))


# --- MNIST and CIFAR-10 -------------------------------------------------------------------------


def write_mnist(root: Path, *, count: int = 40) -> Path:
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        raw = write_part(root, part, pixels, np.arange(count) % 10)
    return raw


def test_mnist_is_padded(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    loaded = data.load(DataSettings(name="mnist", root=str(tmp_path)))
    assert loaded.train.images.shape == (40, 1, 32, 32)
    assert loaded.variant == "MNIST, padded to 32 x 32 pixels: 40 training images, 40 test images"
    original = MNIST(str(tmp_path), train=True).data
    assert torch.equal(loaded.train.images[:, 0, 2:30, 2:30], original)
    assert loaded.train.images.sum() == original.sum()


def test_normalization(tmp_path: Path) -> None:
    image_folder(tmp_path)
    expected = {
        "half": ([0.5] * 3, [0.5] * 3),
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }
    for name, (mean, std) in expected.items():
        settings = folder_settings(tmp_path, views=ViewSettings(normalization=name))
        loaded = data.load(settings)
        assert loaded.mean.tolist() == pytest.approx(mean)
        assert loaded.std.tolist() == pytest.approx(std)
    loaded = data.load(DataSettings(views=ViewSettings(normalization="half")))
    assert (loaded.mean.tolist(), loaded.std.tolist()) == ([0.5], [0.5])


def cut(raw: Path) -> None:
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])


def empty(raw: Path) -> None:
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"")


def no_idx_file(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes(gzip.compress(b"0" * 100))


def shorter(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 7) + bytes(7))


def missing(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").unlink()


@pytest.mark.parametrize("damage", [cut, empty, no_idx_file, shorter, missing])
def test_damaged_mnist_is_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(write_mnist(tmp_path))
    message = refusal(DataSettings(name="mnist", root=str(tmp_path)))
    assert "MNIST" in message
    assert "remove it" in message


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)

    def write(name: str, content: object) -> str:
        content = pickle.dumps(content)
        (folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def batch() -> dict[str, object]:
        pixels = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [n % 10 for n in range(20)]}

    train = [[name, write(name, batch())] for name in ("data_batch_1", "data_batch_2")]
    test = [["test_batch", write("test_batch", batch())]]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", test)
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder


def write_cifar10_jpeg(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = root / "cifar10_jpeg"
    write_images(folder / "train", classes=CLASSES, each=2, size=(32, 32))
    write_images(folder / "test", classes=CLASSES, each=1, size=(32, 32))
    monkeypatch.setattr(sources, "_CIFAR10_COUNTS", {"train": 20, "test": 10})
    return folder


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar10(tmp_path, monkeypatch)
    write_cifar10_jpeg(tmp_path, monkeypatch)  # the original comes first
    settings = DataSettings(name="cifar10", root=str(tmp_path))
    loaded = data.load(settings)
    assert loaded.variant == "CIFAR-10: 40 training images, 20 test images"
    first = pickle.loads((folder / "data_batch_1").read_bytes())
    assert torch.equal(loaded.train.images[:20].flatten(1), torch.from_numpy(first["data"]))
    assert loaded.train.labels[:20].tolist() == first["labels"]
    (folder / "data_batch_2").write_bytes(b"half a fi")
    assert "no network in tests" in refusal(settings)


def test_cifar10_as_jpeg_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar10_jpeg(tmp_path, monkeypatch)
    settings = DataSettings(name="cifar10", root=str(tmp_path))
    loaded = data.load(settings)
    assert loaded.variant == "CIFAR-10 (JPEG): 20 training images, 10 test images"
    assert loaded.train.images.shape == (20, 3, 32, 32)
    assert loaded.train.labels.tolist() == [n // 2 for n in range(20)]
    next((folder / "test" / CLASSES[3]).iterdir()).rename(folder / "test" / CLASSES[0] / "x.png")
    assert "must hold one subfolder of images for each class" in refusal(settings)
    (folder / "test" / CLASSES[3]).rmdir()
    assert "must hold 10 images in 10 classes, found 10 in 9: unpack it again" in refusal(settings)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_missing_images_are_one_line_that_says_what_to_do(tmp_path: Path, name: str) -> None:
    message = refusal(DataSettings(name=name, root=str(tmp_path)))
    assert "no network in tests" in message
    assert f"data.root={tmp_path}" in message
    assert "set data.root to the folder that holds it" in message


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_wrong_root_makes_no_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    for root in (tmp_path / "there", tmp_path / "not" / "there"):
        refusal(DataSettings(name=name, root=str(root)))
        assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_what_was_downloaded_before_it_failed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str, root: str, **_: object) -> None:
        Path(root).mkdir()
        (Path(root) / "half").touch()
        raise URLError("gone")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    assert "gone" in refusal(DataSettings(name="cifar10", root=str(tmp_path / "data")))
    assert (tmp_path / "data" / "half").exists()


def test_options_for_other_data_are_refused(tmp_path: Path) -> None:
    assert "data.keep=files is for data=folder" in refusal(DataSettings(keep="files"))
    assert "data.image_size is for data=folder" in refusal(DataSettings(image_size=16))
    assert "data.image_size must be given" in refusal(folder_settings(tmp_path, image_size=None))
    grayscale = DataSettings(views=ViewSettings(normalization="imagenet"))
    assert "is for images in colour" in refusal(grayscale)
    assert "data.name must be one of digits, cifar10" in refusal(DataSettings(name="mine"))


def test_where_a_folder_is_kept_does_not_change_its_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.data._COUNTED", 5)  # of 12 images
    views = ViewSettings(normalization="training_images")
    found = [
        data.load(folder_settings(image_folder(tmp_path / keep), keep=keep, views=views))
        for keep in ("host", "files")
    ]
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(found[0].std, found[1].std)
    every = found[0].train.images.double().mean(dim=(0, 2, 3)) / 255
    assert not torch.allclose(found[0].mean.double(), every, rtol=0, atol=1e-4)


# --- configs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "normalization"),
    [
        ("digits", "training_images"),
        ("cifar10", "cifar10"),
        ("mnist", "half"),
        ("folder", "imagenet"),
    ],
)
def test_every_config_composes(name: str, normalization: str) -> None:
    settings = commands.settings(f"data={name}", "data.root=somewhere").data
    assert settings.name == name
    assert settings.views.normalization == normalization


def test_every_config_has_a_reader() -> None:
    files = (commands.ROOT / "configs" / "data").glob("*.yaml")
    assert {file.stem for file in files} == {*sources.READERS}


def test_a_preset_can_be_chosen_and_changed() -> None:
    views = commands.settings(
        "data=cifar10", "data/views=lightly", "data.views.flip=0.25"
    ).data.views
    assert (views.flip, views.hue) == (0.25, 0.2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.imbalance=0.5"], "data.imbalance must be .*at least 1"),
        (["data.order=sorted"], "data.order must be one of shuffled, class_correlated, bursts"),
        (["data.views.crop_min=0"], "data.views.crop_min must be .* above 0"),
        (["data.views.hue=0.6"], "data.views.hue must be"),
        (["data.image_size=4"], "data.image_size must be .*at least 8"),
    ],
)
def test_wrong_options_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        commands.settings(*overrides)
    assert "\n" not in str(caught.value)
