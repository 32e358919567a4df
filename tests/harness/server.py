"""Runs the harness in forked processes: it is imported once, as that takes seconds.

``python -m tests.harness.server`` reads requests from its standard input, a JSON line each, and
answers each with the exit status of ``python -m harness``. A child can be killed: after some
seconds, or when the file of its n-th checkpoint is written.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
import traceback
from typing import Any

import torch

# W&B, which timm imports, makes a folder for its media when it is imported and removes it at exit:
# each child needs its own.
sys.modules["wandb"] = None  # type: ignore[assignment]
import pytorch_lightning  # noqa: E402, F401  imported before any child is forked

import harness.experiments  # noqa: E402, F401
from harness import checkpoints  # noqa: E402

del sys.modules["wandb"]


def become(request: dict[str, Any]) -> None:
    """Makes this process what the request asks for."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for descriptor, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["harness", *request["arguments"]]
    forked = multiprocessing.get_context("fork")
    # Workers are forked too, where a user's import all anew: here no thread has begun yet.
    multiprocessing.get_context = lambda _: forked  # type: ignore[assignment]
    if request["killed_at_checkpoint"]:
        die_at_checkpoint(request["killed_at_checkpoint"])


def die_at_checkpoint(number: int) -> None:
    """SIGKILL when the file is half written (odd numbers) or whole but not in its place yet."""
    seen: list[int] = []

    def sync(descriptor: int) -> None:
        seen.append(descriptor)
        if len(seen) == number:
            if number % 2:
                os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._sync = sync


def serve() -> bool:
    """Forks a child a request; whether this process is such a child."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            become(request)
            return True
        if request["killed_after"]:
            time.sleep(request["killed_after"])
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, file=answers, flush=True)
    return False


def run() -> int:
    """The exit status of ``python -m harness``, as this process would have it."""
    try:
        runpy.run_module("harness", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()  # else each child's collector walks, and so copies, all that is imported here
    if serve():
        status = run()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        # Python would take down all that is frozen, too, and bindings tell what they miss.
        os._exit(status)
