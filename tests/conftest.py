"""Settings of all tests."""

from pathlib import Path

import pytest
import torch

# The tests' tensors are small: a second thread costs more than it brings, and many times that where
# another process uses the core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where torch sees none; measures coverage where the plugin is tested.

    Watched by coverage, the harness's tests take 1.6 times as long.
    """
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
        if Path(__file__).parent / "harness" in item.path.parents:
            item.add_marker(pytest.mark.no_cover)
