"""Runs the harness in child processes that are killed; imports it once, as that takes seconds.

``python -m tests.harness.killed '[[ARGUMENTS, HOW], ...]'``, one child after the other. HOW is null
(left alone), seconds (SIGKILL after so long), or the number of the checkpoint whose file is written
when SIGKILL comes, as {"checkpoint": N}. Prints the children's exit statuses as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pytorch_lightning
import torch

import harness.experiments
from harness import checkpoints
from harness.__main__ import main


def child(arguments: list[str], how: Any) -> int:
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        if isinstance(how, dict):
            die_at_checkpoint(how["checkpoint"])
        sys.argv = ["harness", *arguments]
        main(arguments)
        sys.stdout.flush()
        os._exit(0)
    if isinstance(how, float):
        time.sleep(how)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at_checkpoint(number: int) -> None:
    """SIGKILL when the file is half written (odd numbers) or whole but not in its place yet."""
    seen: list[int] = []

    def fsync(descriptor: int) -> None:
        seen.append(descriptor)
        if len(seen) == number:
            if number % 2:
                os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.os.fsync = fsync  # the only call of it in the harness


if __name__ == "__main__":
    imported_before_any_child = (pytorch_lightning, harness.experiments)
    print(json.dumps([child(*run) for run in json.loads(sys.argv[1])]))
