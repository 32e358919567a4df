"""Runs the harness in forked processes: it is imported once, as that takes seconds.

``python -m tests.harness.server`` reads requests from its standard input, a JSON line each, and
answers each with the exit status of ``python -m harness``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

import torch

# W&B, which timm imports, makes a folder for its media when it is imported and removes it at exit:
# each child needs its own.
sys.modules["wandb"] = None  # type: ignore[assignment]
import pytorch_lightning  # noqa: E402, F401  imported before any child is forked

import harness.experiments  # noqa: E402, F401

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
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, file=answers, flush=True)
    return False


if __name__ == "__main__":
    torch.set_num_threads(1)
    if serve():
        runpy.run_module("harness", run_name="__main__", alter_sys=True)
