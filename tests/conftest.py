"""Settings of all tests."""

import pytest
import torch

# The tests' tensors are small: a second thread costs more than it brings, and many times that where
# another process uses the core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where torch sees none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
