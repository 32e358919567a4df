"""Data: what is read, how it is split, held and ordered, and what is said when it is not there."""

import gzip
import hashlib
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST

from harness import data
from harness.data import EpochBatches, FileSet, ImageSet, place, sources, train_loader
from harness.data.batches import drifting_order
from harness.data.images import read_image
from harness.data.splits import held_out_size, imbalanced, split
from harness.settings import DataSettings, SettingsError, ViewSettings, register_schemas, resolve

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = [f"class{k}" for k in range(10)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


def write_images(folder: Path, *, classes: list[str], each: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(zlib.crc32(folder.name.encode()))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(each):
            pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n:04d}.png")


def image_folder(root: Path, *, test: str = "test", size: tuple[int, int] = (16, 16)) -> Path:
    write_images(root / "train", classes=["cat", "dog"], each=6, size=size)
    write_images(root / test, classes=["cat", "dog"], each=3, size=size)
    return root


def folder_settings(root: Path, **options: object) -> DataSettings:
    return DataSettings(**{"name": "folder", "root": str(root), "image_size": 16, **options})


def refusal(settings: DataSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        data.load(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- digits -------------------------------------------------------------------------------------


def test_digits() -> None:
    loaded = data.load(DataSettings())
    assert loaded.train.images.shape == (1347, 1, 8, 8)
    assert loaded.test.images.shape == (450, 1, 8, 8)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.num_classes == 10
    assert loaded.variant == "scikit-learn digits, 8 x 8, 1347 training and 450 test images"
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
    assert held.variant.endswith("1077 training and 270 validation images")


# --- MNIST and CIFAR-10 -------------------------------------------------------------------------


def write_mnist(root: Path, *, count: int = 40) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + labels.tobytes()
        )
    return raw


def test_mnist_is_padded(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    loaded = data.load(DataSettings(name="mnist", root=str(tmp_path)))
    assert loaded.train.images.shape == (40, 1, 32, 32)
    assert loaded.variant == "MNIST, padded to 32 x 32, 40 training and 40 test images"
    original = MNIST(str(tmp_path), train=True).data
    assert torch.equal(loaded.train.images[:, 0, 2:30, 2:30], original)
    assert loaded.train.images.sum() == original.sum()


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
    assert loaded.variant == "CIFAR-10, 40 training and 20 test images"
    first = pickle.loads((folder / "data_batch_1").read_bytes())
    assert torch.equal(loaded.train.images[:20].flatten(1), torch.from_numpy(first["data"]))
    assert loaded.train.labels[:20].tolist() == first["labels"]
    (folder / "data_batch_2").write_bytes(b"half a fi")
    assert "no network in tests" in refusal(settings)


def test_cifar10_as_jpeg_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar10_jpeg(tmp_path, monkeypatch)
    settings = DataSettings(name="cifar10", root=str(tmp_path))
    loaded = data.load(settings)
    assert loaded.variant == "CIFAR-10 (JPEG), 20 training and 10 test images"
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


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder(tmp_path: Path, test: str) -> None:
    image_folder(tmp_path / "pets", test=test)
    loaded = data.load(folder_settings(tmp_path / "pets"))
    assert loaded.variant == "pets, 16 x 16, 12 training and 6 test images"
    assert loaded.num_classes == 2
    assert loaded.train.labels.tolist() == [0] * 6 + [1] * 6
    expected = np.array(Image.open(tmp_path / "pets" / "train" / "dog" / "0002.png"))
    assert torch.equal(loaded.train.images[8], torch.from_numpy(expected).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (9, 7), (300, 17)])
def test_images_of_any_size_become_squares_of_their_centre(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, width)
    pixels[:, :, 1] = np.linspace(0, 255, height)[:, None]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    red, green, blue = read_image(tmp_path / "image.png", 16).astype(float)
    assert red.shape == (16, 16)
    shorter = min(size)
    for seen, side, axis in ((red, width, 1), (green, height, 0)):
        profile = seen.mean(axis=1 - axis)
        assert profile.mean() == pytest.approx(127.5, abs=130 / shorter + 5)
        assert np.ptp(profile) == pytest.approx(255 * shorter / side, rel=0.3)
    assert not blue.any()


def test_images_of_one_channel_or_a_palette_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1"):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (16, 16), 1).save(path)
        assert read_image(path, 16).shape == (3, 16, 16)


def test_missing_folders_are_one_line(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets")
    (root / "test").rename(root / "elsewhere")
    assert "train/CLASS/IMAGE and test/CLASS/IMAGE" in refusal(folder_settings(root))
    assert "train/CLASS/IMAGE and test/CLASS/IMAGE" in refusal(folder_settings(tmp_path / "no"))
    write_images(root / "val", classes=["cat", "mouse"], each=1, size=(8, 8))
    assert "same classes; in one only: dog, mouse" in refusal(folder_settings(root))


@pytest.mark.parametrize("keep", ["auto", "files"])
def test_a_damaged_image_is_named(tmp_path: Path, keep: str) -> None:
    root = image_folder(tmp_path)
    path = root / "train" / "dog" / "0001.png"
    path.write_bytes(path.read_bytes()[:100])
    settings = folder_settings(root, keep=keep, workers=1)
    with pytest.raises(SettingsError, match=f"{path} cannot be read as an image .*remove it") as e:
        list(data.load(settings).train.batches(4))
    # From another process it comes with a traceback, which the command line leaves out.
    assert str(path) in str(e.value).splitlines()[-1]


def test_options_for_other_data_are_refused(tmp_path: Path) -> None:
    assert "data.keep=files is for data=folder" in refusal(DataSettings(keep="files"))
    assert "data.image_size is for data=folder" in refusal(DataSettings(image_size=16))
    assert "data.image_size must be given" in refusal(folder_settings(tmp_path, image_size=None))
    grey = DataSettings(views=ViewSettings(normalization="imagenet"))
    assert "is for images in colour" in refusal(grey)


# --- the decoded copy ---------------------------------------------------------------------------


def copies(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_file())


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_folder(tmp_path)
    first = data.load(folder_settings(root))
    assert [path.name for path in copies(root)] == [".test-16px.uint8", ".train-16px.uint8"]

    def decoded_again(self: FileSet) -> ImageSet:
        raise AssertionError

    monkeypatch.setattr(FileSet, "load", decoded_again)
    second = data.load(folder_settings(root))
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.train.labels, second.train.labels)


def test_a_changed_folder_is_decoded_anew(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    first = data.load(folder_settings(root))
    path = root / "train" / "cat" / "0000.png"
    Image.new("RGB", (16, 16), (1, 2, 3)).save(path)
    second = data.load(folder_settings(root))
    assert second.train.images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert torch.equal(first.train.images[1:], second.train.images[1:])
    path.rename(path.with_name("new.png"))  # the same size and time, elsewhere in the order
    third = data.load(folder_settings(root))
    assert third.train.images[5, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kept", [0, 10, 100, -1])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, kept: int) -> None:
    root = image_folder(tmp_path)
    first = data.load(folder_settings(root))
    copy = root / ".train-16px.uint8"
    whole = copy.read_bytes()
    flipped = whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]
    copy.write_bytes(flipped if kept < 0 else whole[:kept])
    assert torch.equal(data.load(folder_settings(root)).train.images, first.train.images)
    assert copy.read_bytes() == whole


def test_where_no_copy_can_be_written_the_images_are_decoded(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / ".train-16px.uint8").mkdir()  # root writes anywhere but over a folder
    loaded = data.load(folder_settings(root))
    assert len(loaded.train) == 12
    assert [path.name for path in copies(root)] == [".test-16px.uint8"]


# --- where images are kept ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_files_are_those_in_memory(tmp_path: Path, workers: int) -> None:
    root = image_folder(tmp_path, size=(40, 24))
    resident = data.load(folder_settings(root, split="validation"))
    files = data.load(folder_settings(root, split="validation", keep="files", workers=workers))
    assert isinstance(files.train, FileSet)
    for of_memory, of_files in ((resident.train, files.train), (resident.test, files.test)):
        assert torch.equal(of_memory.labels, of_files.labels)
        assert torch.equal(of_memory.images, torch.cat(list(of_files.batches(4))))
    assert torch.equal(resident.mean, files.mean)
    assert torch.equal(resident.std, files.std)
    for one, other in zip(
        train_loader(resident.train, batch_size=4, seed=1),
        train_loader(files.train, batch_size=4, seed=1),
        strict=True,
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_images_that_exceed_the_memory_stay_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path)
    assert isinstance(data.load(folder_settings(root)).train, ImageSet)
    monkeypatch.setattr(sources, "_SHARE_OF_MEMORY", 1e-9)
    assert isinstance(data.load(folder_settings(root)).train, FileSet)
    assert isinstance(data.load(folder_settings(root, keep="host")).train, ImageSet)


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2).long())
    elsewhere = torch.device("meta")
    for keep in ("auto", "device"):
        placed = place(images, elsewhere, keep=keep)
        assert placed.images.device == placed.labels.device == elsewhere
    assert place(images, elsewhere, keep="host") is images
    full = {"auto": images, "host": images}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * images.images.nbytes - 1, 0))
    for keep, expected in full.items():
        assert place(images, torch.device("cuda"), keep=keep) is expected
    files = FileSet([tmp_path], torch.zeros(1).long(), image_size=16, workers=0)
    assert place(files, elsewhere, keep="device") is files


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("keep", ["device", "host"])
def test_batches_from_the_device_and_from_pinned_memory(keep: str) -> None:
    images = data.load(DataSettings()).train
    loader = train_loader(place(images, torch.device("cuda"), keep=keep), batch_size=64, seed=1)
    for batch, indices in loader:
        assert batch.is_cuda if keep == "device" else batch.is_pinned()
        assert torch.equal(batch.cpu(), images.images[indices.cpu()])


# --- subsets ------------------------------------------------------------------------------------


labels_of_all_classes = st.integers(2, 6).flatmap(
    lambda classes: st.lists(st.integers(0, classes - 1), max_size=60).map(
        lambda drawn: torch.tensor(drawn + list(range(classes)) * 2)
    )
)


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


def test_left_over_images_wait() -> None:
    batches = EpochBatches(torch.zeros(10).long(), batch_size=4, seed=0)
    assert [len(batch) for batch in batches] == [4, 4]
    with pytest.raises(SettingsError, match="trainer.batch_size must be at most .* 10, got 11"):
        EpochBatches(torch.zeros(10).long(), batch_size=11, seed=0)


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
    assert all(one & other for one, other in zip(classes, classes[1:], strict=False))
    shuffled = EpochBatches(labels, batch_size=50, seed=0)
    assert min(len(set(labels[batch].tolist())) for batch in shuffled) > 5


# --- configs ------------------------------------------------------------------------------------


def composed(*overrides: str) -> DataSettings:
    register_schemas()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return resolve(compose("config", list(overrides))).data


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
    settings = composed(f"data={name}", "data.root=somewhere")
    assert settings.name == name
    assert settings.views.normalization == normalization


def test_a_preset_can_be_chosen_and_changed() -> None:
    settings = composed("data=cifar10", "data/views=lightly", "data.views.flip=0.25")
    assert (settings.views.flip, settings.views.hue) == (0.25, 0.2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.imbalance=0.5"], "data.imbalance must be at least 1"),
        (["data.order=sorted"], "data.order must be one of shuffled, class_correlated"),
        (["data.views.crop_min=0"], "data.views.crop_min must be .* above 0"),
        (["data.views.hue=0.6"], "data.views.hue must be"),
        (["data.image_size=4"], "data.image_size must be at least 8"),
    ],
)
def test_wrong_options_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        composed(*overrides)
    assert "\n" not in str(caught.value)
