"""The memory that a step adds at its peak to what is allocated before it.

On a GPU that is ``torch.cuda.max_memory_allocated``. On the CPU it is the kernel's peak of the
resident memory (VmHWM in /proc, reset just before the step; Linux only), read in a process in which
malloc gives large blocks back at once, so that a step cannot reuse unseen what came before it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Step = Callable[[], object]


def cuda_extra_memory(step: Step) -> int:
    """Bytes on the GPU."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cpu_extra_memory(bench: str, task: Any) -> dict[str, int]:
    """Bytes for each variant of a bench, from a new process of its module with a task in JSON.

    The process prints what ``peak_extra_memory`` gives for each. Empty where /proc does not tell.
    """
    if not Path("/proc/self/clear_refs").exists():
        return {}
    told = subprocess.run(
        [sys.executable, "-m", f"harness.bench.{bench}", json.dumps(task)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)},
    )
    found: dict[str, int] = json.loads(told.stdout)
    return found


def peak_extra_memory(step: Step) -> int:
    """Bytes that a step adds at its peak to this process's resident memory (Linux)."""
    step()  # allocates what stays, such as the libraries' buffers
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])
