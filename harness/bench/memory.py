"""The memory that a step adds at its peak to what is allocated before it.

On a GPU that is ``torch.cuda.max_memory_allocated``. On the CPU it is the kernel's peak of the
resident memory (VmHWM in /proc, reset just before the step; Linux only), read in a process in which
malloc gives large blocks back at once, so that a step cannot reuse unseen what came before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path

import torch

from harness.workers import limit_threads

Step = Callable[[], object]
_MALLOC = "MALLOC_MMAP_THRESHOLD_"  # glibc reads it when a process starts


def extra_memory(
    make_steps: Callable[[], Mapping[str, Step]], *, device: torch.device
) -> dict[str, float]:
    """MiB that each step adds on the device; none where /proc does not tell.

    Args:
        make_steps: Makes the steps by name; for the CPU in a new process, so it can be pickled.
        device: Where the steps compute.
    """
    if device.type == "cuda":
        found = _peaks(make_steps, cuda_extra_memory)
    elif Path("/proc/self/clear_refs").exists():
        os.environ[_MALLOC] = str(2**16)
        threads = torch.get_num_threads()
        with get_context("spawn").Pool(1, limit_threads, (threads,)) as pool:
            del os.environ[_MALLOC]
            found = pool.apply(_peaks, (make_steps, peak_extra_memory))
    else:
        found = {}
    return {name: peak / 2**20 for name, peak in found.items()}


def _peaks(
    make_steps: Callable[[], Mapping[str, Step]], peak: Callable[[Step], int]
) -> dict[str, int]:
    return {name: peak(step) for name, step in make_steps().items()}


def cuda_extra_memory(step: Step) -> int:
    """Bytes that a step adds at its peak on the GPU."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_extra_memory(step: Step) -> int:
    """Bytes that a step adds at its peak to this process's resident memory (Linux)."""
    step()  # allocates what stays, such as the libraries' buffers
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    step()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split(maxsplit=1)[0])
