"""The options of a run but for its method: data, views, backbone, trainer, evaluation, logger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING

from harness.settings.fields import choice, option, ranged, ranged_list, share
from harness.settings.registry import CONFIGS, config, schema

# Mean and standard deviation of each channel, or of any, by which others normalise.
NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}
_DATA_SETS = sorted({file.stem for file in (CONFIGS / "data").glob("*.yaml")} - {"digits"})


@schema("views")
@dataclass
class ViewSettings:
    """The parts of a random view in the order in which they act, all off here.

    The values with their sources are in ``configs/data/views``: digits, simclr_paper, lightly,
    mnist_paper.
    """

    crop_min: float = ranged(
        1.0,
        above=0.0,
        high=1.0,
        help="Least share of the area of torchvision's random resized crop; 1 is off.",
    )
    flip: float = share(help="Probability of a flip, left to right.")
    # Random affine map; each view of an image draws its own, uniform within these bounds.
    degrees: float = ranged(0.0, low=0.0, high=180.0, help="Largest rotation, degrees.")
    translate: float = share(help="Largest shift, as a share of the width.")
    scale: float = ranged(
        0.0, low=0.0, below=1.0, help="Size of the content is from 1 - x to 1 + x."
    )
    shear: float = share(help="Largest shear, tangent of its angle.")
    jitter: float = share(
        help="Probability of torchvision's colour jitter, the next four together."
    )
    brightness: float = share(help="Largest change of the brightness, as a share.")
    contrast: float = share(help="Largest change of the contrast, as a share.")
    saturation: float = share(help="Largest change of the saturation, as a share.")
    hue: float = ranged(0.0, low=0.0, high=0.5, help="Largest change of the hue, in turns.")
    grayscale: float = share(help="Probability of a view without colour.")
    normalization: str = choice(
        "training_images",
        *NORMALIZATIONS,
        help="Whose mean and standard deviation images are normalised by, for evaluation too.",
    )


@schema("data")
@dataclass
class DataSettings:
    """Which images, how they are split, held and augmented."""

    name: str = choice("digits", *_DATA_SETS)
    root: str = option(
        "data", help="Where cifar10 and mnist lie or are put; with data=folder, the folder itself."
    )
    split: str = choice(
        "test",
        "validation",
        help="Images to evaluate on. validation: training images held out for choosing settings, "
        "5,000, or a fifth if fewer.",
    )
    image_size: int | None = ranged(
        None, low=8, high=4096, help="Pixels a side, with data=folder only."
    )
    imbalance: float = ranged(
        1.0,
        low=1.0,
        help="Training images of the largest class for one of the smallest, the others between in "
        "equal ratios; 1 is off.",
    )
    order: str = choice(
        "shuffled",
        "class_correlated",
        "bursts",
        help="Order of the training images. class_correlated: a stream that drifts from class to "
        "class, two at a time. bursts: an image 16 times in a row, in other views, as frames of a "
        "film.",
    )
    keep: str = choice(
        "auto",
        "device",
        "host",
        "files",
        help="Where the images are. auto: on the device if they take at most half of its free "
        "memory, else in the host's, else in their files (folder only), read anew each time.",
    )
    workers: int = ranged(4, low=0, high=256, help="Processes that read files, with keep=files.")
    views: ViewSettings = field(default_factory=ViewSettings)


@dataclass
class BackboneSettings:
    """The network whose features are evaluated."""

    name: str = MISSING


@config(
    "backbone",
    "mnist_cnn",
    help="The paper's encoder without its head: 1024 features of 32 x 32 pixels (Huang 2026, "
    "App. P.4).",
    width=32,
    strides=[2, 2, 2, 2],
    pool=False,
)
@config(
    "backbone",
    "cifar_cnn",
    help="Four convolutions of stride 2, 256 features: minutes of CIFAR-10 on a laptop.",
    width=32,
    strides=[2, 2, 2, 2],
)
@config("backbone", "small_cnn")
@dataclass
class SmallCNNSettings(BackboneSettings):
    """A few convolutions, for a laptop."""

    name: str = choice("small_cnn", "cifar_cnn", "mnist_cnn")
    width: int = ranged(16, low=1, high=1024, help="Channels of the first layer, doubled by each.")
    strides: list[int] = ranged_list(1, 2, 2, low=1, high=4, help="Stride of each layer.")
    pool: bool = option(True, help="Features are means over the image; false: one a position.")


@config("backbone", "resnet18")
@dataclass
class ResNet18Settings(BackboneSettings):
    """torchvision's ResNet-18 with a 3 x 3 stem of stride 1 and no max-pooling [P]."""

    name: str = choice("resnet18")


@config("backbone", "timm", name=MISSING)
@dataclass
class TimmSettings(BackboneSettings):
    """Any model of timm, by timm's name, without pretrained weights."""

    name: str = option(MISSING, help="timm's name of a model, as convnext_atto.")
    small_stem: str | bool = choice(
        "auto",
        True,
        False,
        help="Whether the first layer keeps more of the image (harness/backbones.py says how). "
        "auto: where images have at most 64 pixels a side and the model lets it be done.",
    )


@schema("trainer")
@dataclass
class TrainerSettings:
    """How long and on what to train; the learning rate belongs to the method."""

    epochs: int = ranged(
        200, low=0, help="Passes over the training images; 0 evaluates the untrained network. [P]"
    )
    batch_size: int = ranged(256, low=2, help="Images a step, of all devices together. [P]")
    warmup_ratio: float = ranged(
        0.1, low=0.0, below=1.0, help="Share of the steps in which the learning rate rises. [R]"
    )
    log_every: int = ranged(1, low=1, help="Steps between two rows of metrics.csv.")
    probe_every: int = ranged(1, low=1, help="Epochs between two measurements of the online probe.")
    accelerator: str = choice("cpu", "cuda", help="What to train on.")
    devices: int = ranged(
        1, low=1, help="Devices of one machine; more than one train by Lightning's DDP."
    )
    num_nodes: int = ranged(1, low=1, help="Machines, with as many devices each.")
    precision: str = choice(
        "32-true", "bf16-mixed", help="Of the arithmetic, by Lightning's names."
    )
    compile: bool = option(False, help="Whether torch.compile compiles the backbone.")
    # Operations on 8 x 8 images are too small to share, and two threads on a core that another
    # process uses wait for each other: 250 ms a step against 25.
    threads: int = ranged(1, low=1, help="Threads of one CPU operation.")

    @property
    def world_size(self) -> int:
        """Devices of all machines."""
        return self.devices * self.num_nodes

    def problems(self) -> Iterator[str]:
        """Every device takes an equal part of a batch, for batch statistics 2 images or more."""
        if self.batch_size < 2 * self.world_size:
            yield (
                f"batch_size must hold at least 2 images for each of the {self.world_size} "
                f"devices, got {self.batch_size}"
            )
        elif self.world_size and self.batch_size % self.world_size:
            yield (
                f"batch_size must be a multiple of the {self.world_size} devices that share it, "
                f"got {self.batch_size}"
            )


@schema("evaluation")
@dataclass
class EvaluationSettings:
    """What frozen features are measured by."""

    knn_k: int = ranged(
        20,
        low=1,
        help="Neighbours that vote (weighted kNN, Wu et al. 2018). lightly's benchmarks have 200, "
        "of 50,000 images; digits have 1,347.",
    )
    # exp(1 / t) must be a float32.
    knn_t: float = ranged(0.1, low=0.02, help="Temperature of their votes; lightly's.")
    probe: str = choice(
        "converged",
        "paper",
        help="Linear probe. converged: logistic regression fitted to convergence on images as they "
        "are. paper: SGD over 100 epochs of cropped and flipped ones.",
    )
    labels_per_class: int | None = ranged(
        None,
        low=1,
        help="Labelled training images of each class that neighbours and the converged probe have, "
        "mean over ten draws; null: all.",
    )


@config("logger", "tensorboard", help="TensorBoard's event files in the run's folder.")
@config("logger", "csv", help="No curves but those of metrics.csv.")
@config("logger", "wandb", help="Weights & Biases, offline unless asked for.")
@dataclass
class LoggerSettings:
    """Where curves go beside metrics.csv and results.json, which are always written."""

    name: str = choice("wandb", "tensorboard", "csv")
    mode: str = choice(
        "offline",
        "online",
        help="With logger=wandb only; offline needs neither an account nor a network.",
    )
    project: str = option("gmje-plugin", help="W&B's project.")

    def problems(self) -> Iterator[str]:
        """Only W&B has a mode."""
        if self.mode == "online" and self.name != "wandb":
            yield f"mode=online is for logger=wandb, not {self.name}"
