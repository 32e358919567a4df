"""lightly's pytorch examples, a file each: README's diffs are applied to their text.

Their lines are lightly's where a diff can touch them; the backbone and the views come from outside.
"""

from collections.abc import Sequence

from torch import Tensor

Batches = Sequence[tuple[Tensor, Tensor]]  # two views each, shapes: (B, 3, H, W)
