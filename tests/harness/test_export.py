"""What ``python -m harness export`` writes, loaded in a process that has nothing of the harness."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from harness import backbones
from harness.__main__ import main
from harness.backbones import Backbone
from harness.methods.modules.context import BuildContext
from harness.methods.simclr import SimCLRSettings
from harness.settings import (
    BackboneSettings,
    ResNet18Settings,
    SmallCNNSettings,
    TimmSettings,
    TrainerSettings,
    ViewSettings,
)
from harness.views import Views

_MEAN, _STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
_TWO_LINES = """
model = timm.create_model(config["architecture"], **config["model_args"])
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
"""
# Runs in the folder above the exports: what each folder says, then saves its features.
_STRANGER = """
import json, os, sys, torch
images = torch.load("images.pt")
for name in sys.argv[1:]:
    os.chdir(name)
    names = {}
    exec(chr(10).join(json.load(open("config.json"))["load"]), names)
    torch.save(names["model"].eval().double()(images), "features.pt")
    os.chdir("..")
assert not any(module.startswith(("harness", "gmje", "lightly")) for module in sys.modules)
"""
_KINDS: dict[str, BackboneSettings] = {
    "small_cnn": SmallCNNSettings(),
    "resnet18": ResNet18Settings(),
    "convnext_atto": TimmSettings(name="convnext_atto"),
    "vit_tiny": TimmSettings(name="vit_tiny_patch16_224"),
    "mobilenetv3": TimmSettings(name="mobilenetv3_small_100"),
    "stock_regnet": TimmSettings(name="regnety_002", small_stem=False),
}


def _images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)


def _trained(run: Path, settings: BackboneSettings, *, epochs: int = 1) -> Backbone:
    """Trains for two steps an epoch and leaves a checkpoint of the last in the run's folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = backbones.build(settings, in_channels=3, image_size=(32, 32))
        views = Views(ViewSettings(), mean=torch.tensor(_MEAN), std=torch.tensor(_STD), seed=0)
        method = SimCLRSettings(hidden_dim=16, output_dim=8).build(
            BuildContext(backbone, None, views, TrainerSettings(epochs=epochs), seed=0)
        )
        method.add_online_probe(num_classes=2)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    places = torch.arange(8)
    loader = DataLoader(list(zip(_images(), places % 2, places, strict=True)), batch_size=4)
    trainer.fit(method, loader)
    trainer.save_checkpoint(run / "checkpoints" / f"epoch={epochs}.ckpt")
    return backbone.cpu().eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Backbone]]:
    """A folder with an export of each kind, and the backbones that they were made of."""
    folder = tmp_path_factory.mktemp("exports")
    trained = {}
    for name, settings in _KINDS.items():
        run = folder / "runs" / name
        trained[name] = _trained(run, settings)
        main(["export", str(run), "--out", str(folder / name)])
    return folder, trained


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def test_loads_without_the_harness(exports: tuple[Path, dict[str, Backbone]]) -> None:
    folder, trained = exports
    # float64: channels_last, which the harness computes in, rounds otherwise.
    images = _images().double() / 255.0
    torch.save(images, folder / "images.pt")
    command = [sys.executable, "-I", "-c", _STRANGER, *trained]
    subprocess.run(command, cwd=folder, check=True)
    for name, backbone in trained.items():
        with torch.no_grad():
            torch.testing.assert_close(
                torch.load(folder / name / "features.pt"),
                copy.deepcopy(backbone).double()(images),
                msg=name,
            )


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny", "stock_regnet"])
def test_timm_loads_it_in_two_lines_or_as_a_local_model(
    name: str, exports: tuple[Path, dict[str, Backbone]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors
    import timm

    folder, trained = exports
    monkeypatch.chdir(folder / name)
    names = {"timm": timm, "safetensors": safetensors, "config": _config(folder / name)}
    exec(_TWO_LINES, names)
    local = timm.create_model(f"local-dir:{folder / name}", pretrained=True)
    images = _images().double() / 255.0
    with torch.no_grad():
        expected = copy.deepcopy(trained[name]).double()(images)
        for model in (names["model"], local):
            torch.testing.assert_close(model.eval().double()(images), expected)
    data = timm.data.resolve_model_data_config(local)
    assert list(data["input_size"]) == [3, 32, 32]
    assert list(data["mean"]) == pytest.approx(_MEAN)
    assert list(data["std"]) == pytest.approx(_STD)


def test_timm_does_not_load_a_changed_stem_as_if_it_were_stock(
    exports: tuple[Path, dict[str, Backbone]],
) -> None:
    import timm

    # The weights would fit, the strides would not.
    folder = exports[0] / "mobilenetv3"
    timm.create_model("mobilenetv3_small_100", **_config(folder)["model_args"]).load_state_dict(
        load_file(folder / "model.safetensors")
    )
    assert "architecture" not in _config(folder)
    with pytest.raises(KeyError, match="architecture"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_writes_the_last_checkpoint_into_the_run_over_an_older_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = _trained(tmp_path, SmallCNNSettings(), epochs=10)
    main(["export", str(tmp_path)])
    _trained(tmp_path, SmallCNNSettings(), epochs=2)  # later and last by name, of fewer steps
    capsys.readouterr()
    main(["export", str(tmp_path)])
    out = tmp_path / "export"
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    weights = load_file(out / "model.safetensors")
    state = last.network.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], value) for name, value in state.items())
    assert _config(out)["num_features"] == last.feature_dim
    told = capsys.readouterr().out
    assert all(line in told for line in [str(out), *_config(out)["load"]])


def test_a_linear_probe_of_more_steps_is_not_the_training(tmp_path: Path) -> None:
    """As of ``evaluation.probe=paper``, whose checkpoint lies beside the training's."""
    _trained(tmp_path, SmallCNNSettings())
    probe = {"state_dict": {}, "global_step": 500, "epoch": 100}
    torch.save(probe, tmp_path / "checkpoints" / "probe.ckpt")
    main(["export", str(tmp_path)])
    assert (tmp_path / "export" / "model.safetensors").exists()


def _refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["export", *arguments])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_nothing_to_export_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no *.ckpt" in _refusal([str(tmp_path / "missing")], capsys)
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": {}, "global_step": 1, "epoch": 0}, path)
    assert "describe no backbone" in _refusal([str(tmp_path)], capsys)
    whole = path.read_bytes()
    torch.save([], path)
    assert "no checkpoint of the harness" in _refusal([str(tmp_path)], capsys)
    for damaged in (b"", b"PK but no archive", whole[:-100]):
        path.write_bytes(damaged)
        assert f"cannot read {path}" in _refusal([str(tmp_path)], capsys)
    assert not (tmp_path / "export").exists()


def test_no_place_to_write_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _trained(tmp_path, SmallCNNSettings())
    taken = tmp_path / "file"
    taken.write_text("")
    capsys.readouterr()
    assert f"cannot export to {taken}" in _refusal([str(tmp_path), "--out", str(taken)], capsys)


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource", reason="POSIX only")
    _trained(tmp_path, SmallCNNSettings())
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the weights take 97,000 bytes
    try:
        assert "cannot export to" in _refusal([str(tmp_path)], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "export").iterdir()) == []
