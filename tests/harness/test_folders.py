"""Image folders: what is read, the decoded copy beside them, and where images are kept."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from harness import data
from harness.data import EpochBatches, FileSet, ImageSet, sources, to_device, train_loader
from harness.data.images import read_image
from harness.settings import DataSettings, SettingsError
from tests.harness.commands import harness, only
from tests.harness.image_folders import folder_settings, image_folder, refusal, write_images


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder(tmp_path: Path, test: str) -> None:
    image_folder(tmp_path / "pets", test=test)
    loaded = data.load(folder_settings(tmp_path / "pets"))
    assert loaded.variant == "pets, 16 x 16 pixels: 12 training images, 6 test images"
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


RAMP = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)


def change_tag(path: Path, tag: int, before: int, after: int) -> None:
    """Changes a number in the header of a TIFF."""
    whole = path.read_bytes()
    entries = [struct.pack("<2H2I", tag, 3, 1, value) for value in (before, after)]
    assert whole.count(entries[0]) == 1
    path.write_bytes(whole.replace(*entries))


@pytest.mark.parametrize("keep", ["auto", "files"])
@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.big_endian.tif", "0.pgm"])
def test_grey_of_16_bits_is_scaled(tmp_path: Path, name: str, keep: str) -> None:
    root = image_folder(tmp_path)
    image = Image.fromarray(RAMP.astype(">u2") if "big" in name else RAMP)
    image.save(root / "train" / "cat" / name)
    (read,) = next(data.load(folder_settings(root, keep=keep, workers=0)).train.batches(1))
    assert torch.equal(read, torch.from_numpy(RAMP // 256).to(torch.uint8).expand(3, 16, 16))


def test_grey_of_12_bits_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    packed = (b"\x80\x08\x00" * RAMP.nbytes)[: RAMP.nbytes]  # two values of 2,048 in three bytes
    Image.fromarray(np.frombuffer(packed, np.uint16).reshape(RAMP.shape)).save(path)
    change_tag(path, BITSPERSAMPLE, 16, 12)
    assert (read_image(path, 16) == 128).all()


@pytest.mark.parametrize("keep", ["auto", "files"])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_of_no_known_range_are_refused(
    tmp_path: Path, kind: type[np.number], keep: str
) -> None:
    root = image_folder(tmp_path)
    path = root / "train" / "dog" / "grey.tif"
    Image.fromarray((RAMP / 65535).astype(kind)).save(path)
    settings = folder_settings(root, keep=keep, workers=0)
    with pytest.raises(SettingsError, match=f"{path} .* no known range to scale .*convert"):
        list(data.load(settings).train.batches(4))


def test_grey_of_16_bits_whose_zero_is_white_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inverted.tif"
    Image.fromarray(RAMP).save(path)
    change_tag(path, PHOTOMETRIC_INTERPRETATION, 1, 0)
    with pytest.raises(SettingsError, match="TIFF of mode I;16 has no known range"):
        read_image(path, 16)


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


def dead_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere.png")


def over_the_limit(path: Path) -> None:
    Image.new("1", (14_000, 13_000)).save(path)


def over_the_limit_by_damage(path: Path) -> None:
    Image.new("RGB", (16, 16)).save(path, "BMP")
    header = bytearray(path.read_bytes())
    header[20] = 255  # the third byte of the width
    path.write_bytes(header)


def unknown_pixel_format(path: Path) -> None:  # PIL's NotImplementedError
    Image.new("RGB", (16, 16)).save(path, "DDS")
    header = bytearray(path.read_bytes())
    header[80] = 130
    path.write_bytes(header)


@pytest.mark.parametrize("keep", ["auto", "host", "files"])
@pytest.mark.parametrize(
    "make", [dead_link, over_the_limit, over_the_limit_by_damage, unknown_pixel_format]
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], None], keep: str
) -> None:
    path = image_folder(tmp_path) / "train" / "dog" / "9.png"
    make(path)
    settings = folder_settings(tmp_path, keep=keep, workers=0)
    with pytest.raises(SettingsError, match=f"^{path} cannot be read as an image .*remove it$"):
        list(data.load(settings).train.batches(4))


def test_a_class_that_is_a_dead_link_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path)
    for part in ("train", "test"):
        dead_link(tmp_path / part / "fish")
    assert str(tmp_path / "train" / "fish") in refusal(folder_settings(tmp_path))


@pytest.mark.parametrize("keep", ["auto", "host", "files"])
def test_names_need_not_be_utf8(tmp_path: Path, keep: str) -> None:
    root = image_folder(tmp_path)
    for part in ("train", "test"):
        name = os.fsdecode(b"caf\xe9")
        (root / part / "dog" / "0001.png").rename(root / part / "dog" / f"{name}.png")
        (root / part / "dog").rename(root / part / name)
    settings = folder_settings(root, keep=keep, workers=0)
    first, again = (list(data.load(settings).train.batches(12)) for _ in range(2))
    assert torch.equal(first[0], again[0])


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


def test_a_copy_of_other_reading_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path)
    Image.fromarray(RAMP).save(root / "train" / "cat" / "0.png")
    monkeypatch.setattr("harness.data.folders._READING", 1)
    monkeypatch.setattr("harness.data.images._eight_bits", lambda image: image)
    clipped = data.load(folder_settings(root)).train.images
    monkeypatch.undo()
    assert not torch.equal(data.load(folder_settings(root)).train.images, clipped)


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
    batches = EpochBatches(files.train.labels, batch_size=4, seed=1)
    loaders = (train_loader(images, batches) for images in (resident.train, files.train))
    for one, other in zip(*loaders, strict=True):
        assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))


def test_images_that_exceed_the_memory_stay_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path)
    assert isinstance(data.load(folder_settings(root)).train, ImageSet)
    monkeypatch.setattr(sources, "_SHARE_OF_MEMORY", 1e-9)
    assert isinstance(data.load(folder_settings(root)).train, FileSet)
    assert isinstance(data.load(folder_settings(root, keep="host")).train, ImageSet)


def test_to_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2).long())
    elsewhere = torch.device("meta")
    for keep in ("auto", "device"):
        placed = to_device(images, elsewhere, keep=keep)
        assert placed.images.device == placed.labels.device == elsewhere
    assert to_device(images, elsewhere, keep="host") is images
    full = {"auto": images, "host": images}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * images.images.nbytes - 1, 0))
    for keep, expected in full.items():
        assert to_device(images, torch.device("cuda"), keep=keep) is expected
    files = FileSet([tmp_path], torch.zeros(1).long(), image_size=16, workers=0)
    assert to_device(files, elsewhere, keep="device") is files


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("keep", ["device", "host"])
def test_batches_from_the_device_and_from_pinned_memory(keep: str) -> None:
    images = data.load(DataSettings()).train
    batches = EpochBatches(images.labels, batch_size=64, seed=1)
    loader = train_loader(to_device(images, torch.device("cuda"), keep=keep), batches)
    for batch, _, indices in loader:
        assert batch.is_cuda if keep == "device" else batch.is_pinned()
        assert torch.equal(batch.cpu(), images.images[indices.cpu()])


@pytest.mark.parametrize(
    "asked",
    [
        ["experiment=banks", "bank=smc", "bank.size=8"],
        ["experiment.num_seeds=1", *only("moco_smc", "simclr_prototype", "byol_mdn")],
    ],
)
def test_unlabelled_images_are_trained_on(tmp_path: Path, asked: list[str]) -> None:
    for part, each in (("train", 16), ("test", 8)):
        write_images(tmp_path / "pets" / part, classes=["all"], each=each, size=(16, 16))
    images = [f"data.root={tmp_path / 'pets'}", "data=folder", "data.image_size=16"]
    size = ["backbone=small_cnn", "backbone.width=4", "trainer=quickstart", "trainer.epochs=1"]
    done = harness(*asked, *images, *size, "trainer.batch_size=8", "logger=csv", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accuracy" not in done.stdout
    for training in tmp_path.rglob("metrics.csv"):
        metrics = json.loads((training.parent / "results.json").read_text())["metrics"]
        assert set(metrics) == {"effective_rank", "uniformity", "alignment", "dead_dimensions"}
        header = training.read_text().splitlines()[0]
        assert "false_negatives" not in header
        assert "online_accuracy" not in header
    done = harness("report", "outputs", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_root_that_cannot_be_looked_at_is_one_line() -> None:
    assert "cannot be looked at: File name too long" in refusal(folder_settings(Path("x" * 300)))
