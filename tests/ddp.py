"""Runs a function in real gloo processes, as lightly's own distributed tests do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(function: Callable[..., Any], *args: Any, world_size: int = 2) -> list[Any]:
    """Returns ``function(rank, *args)`` of each rank; it must be a module-level function.

    The results must be picklable; an exception on any rank is raised here.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with mp.get_context("spawn").Manager() as manager:
        results = manager.dict()
        mp.spawn(_work, (function, args, world_size, port, results), nprocs=world_size)
        return [results[rank] for rank in range(world_size)]


def _work(
    rank: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    world_size: int,
    port: int,
    results: Any,
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    try:
        results[rank] = function(rank, *args)
    finally:
        dist.destroy_process_group()
