"""Real images without a download: scikit-learn's digits as a torchvision data set."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import VisionDataset


class Digits(VisionDataset):
    """RGB images of 32 x 32 pixels and their labels, as CIFAR-10 has them; up to 1797."""

    def __init__(self, transform: Callable[[Any], Any], size: int = 192) -> None:
        super().__init__(root="", transform=transform)
        self.data, self.size = load_digits(), size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = (self.data.images[index] * 15.9).astype("uint8")
        image = Image.fromarray(pixels).convert("RGB").resize((32, 32))
        return self.transform(image), int(self.data.target[index])
