"""``python -m harness export RUN``: a trained backbone for people who have nothing of ours."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.checkpoints import read_checkpoint
from harness.files import write_all
from harness.settings import SettingsError

# timm's own names and layout, so that timm loads the folder also as "local-dir:FOLDER".
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PREFIX = "backbone.network."  # of the backbone's weights in a method's state

_CREATE = {
    "timm": "model = timm.create_model(config[{key!r}], **config['model_args'])",
    "torchvision": "model = torchvision.models.get_model(config[{key!r}], **config['model_args'])",
    "torch": (
        "model = torch.nn.Sequential("
        "*(getattr(torch.nn, kind)(**args) for kind, args in config['layers'].values()))"
    ),
}
_REPLACE = (
    "for name, (kind, args) in config['layers'].items(): "
    "model.set_submodule(name, getattr(torch.nn, kind)(**args))"
)


def main(arguments: Sequence[str]) -> None:
    """Reads the command line, exports and says how to load.

    Raises:
        SettingsError: If there is nothing to export or no place to write to.
    """
    parser = argparse.ArgumentParser(
        prog="python -m harness export",
        description=f"Writes the trained backbone of a run as {WEIGHTS} and {CONFIG}.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    parser.add_argument("--out", metavar="DIR", type=Path, help="default: RUN/export")
    asked = parser.parse_args(arguments)
    out = asked.out or asked.run / "export"
    config = export_backbone(asked.run, out)
    print(f"{out} holds {WEIGHTS} and {CONFIG}. In that folder,", *config["load"], sep="\n    ")
    print("loads the backbone.")


def export_backbone(run: Path, out: Path) -> dict[str, Any]:
    """Writes the backbone of a run's last checkpoint to a folder.

    Args:
        run: The run's folder.
        out: The folder to write to; the two files of an export made before are replaced.

    Returns:
        What ``config.json`` holds.

    Raises:
        SettingsError: If there is no checkpoint to read or the folder cannot be written.
    """
    from safetensors.torch import save  # here, as other commands do without

    checkpoint = _last_checkpoint(run)
    weights = {
        name.removeprefix(_PREFIX): tensor.contiguous()  # not channels_last: safetensors cannot
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    config = _config(checkpoint["backbone"])
    files = {
        WEIGHTS: save(weights, metadata={"format": "pt"}),
        CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
    }
    try:
        write_all(out, files)  # both are whole before either takes the place of an older one
    except OSError as error:
        raise SettingsError(f"cannot export to {out}: {error}") from error
    return config


def _last_checkpoint(run: Path) -> dict[str, Any]:
    """The checkpoint of the most training steps; a linear probe's lies beside it."""
    paths = sorted(run.glob("checkpoints/*.ckpt"))
    if not paths:
        raise SettingsError(f"{run / 'checkpoints'} has no *.ckpt: nothing to export")
    found = [each for each in map(read_checkpoint, paths) if "backbone" in each]
    if not found:
        raise SettingsError(f"{run} has no checkpoint of a training: they describe no backbone")
    return max(found, key=lambda each: int(each["global_step"]))


def _config(described: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` holds: the recipe, the images it is for, and how to load it.

    A model whose layers were replaced has its name under another key than timm looks at: loaded
    without them, a convolution of another stride would take the same weights and no one would know.
    """
    library = described["library"]
    key = "base_architecture" if described["layers"] else "architecture"
    libraries = sorted({"json", "safetensors.torch", "torch", library})
    load = [
        f"import {', '.join(libraries)}",
        f"config = json.load(open({CONFIG!r}))",
        _CREATE[library].format(key=key),
        *([_REPLACE] if described["layers"] and library != "torch" else []),
        f"model.load_state_dict(safetensors.torch.load_file({WEIGHTS!r}))",
    ]
    built_from = {key: described["architecture"], "model_args": described["model_args"]}
    return {
        **({} if library == "torch" else built_from),
        **({"layers": described["layers"]} if described["layers"] else {}),
        "num_classes": 0,
        "num_features": described["feature_dim"],
        "pretrained_cfg": {
            "input_size": described["input_shape"],
            "mean": described["mean"],
            "std": described["std"],
            "num_classes": 0,
        },
        "load": load,
    }
