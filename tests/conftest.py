"""Settings of all tests."""

import torch

# The tests' tensors are small: a second thread costs more than it brings, and many times that where
# another process uses the core.
torch.set_num_threads(1)
