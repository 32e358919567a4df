"""Jobs in processes of their own, each begun when what it needs is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing import connection
from pathlib import Path
from typing import Any

from rich.console import Console
from threadpoolctl import threadpool_limits

from harness.files import read_json
from harness.progress import Report, named, reporting

_POLL = 0.5  # seconds
_reports: Any = None  # of a worker: the queue to the process that started it


@dataclass(frozen=True)
class Job:
    """Something to do once.

    Attributes:
        name: What the progress bar says of it.
        do: Does it; is given a function to call with the units done since the last call and what
            is new. Both it and its arguments can be pickled.
        result: The JSON file that is there, and whole, when it is done.
        units: Its length on the progress bar.
        needs: Names of the jobs to be done before.
    """

    name: str
    do: Callable[[Report], None]
    result: Path
    units: int = 1
    needs: frozenset[str] = frozenset()


def run_jobs(jobs: Sequence[Job], *, workers: int, threads: int, console: Console) -> None:
    """Does the jobs whose result is not there yet, the first that can be begun first.

    If one fails or this process is interrupted, the others are ended where they are.

    Raises:
        ValueError: If a job needs one that there is not, or several need each other.

    Args:
        jobs: What to do.
        workers: Number of processes.
        threads: Of each of them.
        console: Shows progress.
    """
    unknown = {need for job in jobs for need in job.needs} - {job.name for job in jobs}
    if unknown:
        raise ValueError(f"needs must be names of jobs, got {', '.join(sorted(unknown))}")
    waiting = {job.name: job for job in jobs if read_json(job.result) is None}
    order = TopologicalSorter({name: job.needs & waiting.keys() for name, job in waiting.items()})
    order.prepare()
    if not waiting:
        return
    total = sum(job.units for job in jobs)
    before = total - sum(job.units for job in waiting.values())
    context = multiprocessing.get_context("spawn")  # torch's threads survive no fork
    reports, stop = context.SimpleQueue(), context.Event()
    running: dict[Future[None], str] = {}
    with (
        _sigterm_raised(),
        reporting(console, total=total, done=before) as report,
        ProcessPoolExecutor(
            min(workers, len(waiting)),
            mp_context=context,
            initializer=_start,
            initargs=(threads, reports, stop),
        ) as pool,
    ):
        try:
            while order.is_active():
                for name in sorted(order.get_ready(), key=list(waiting).index):
                    running[pool.submit(_do, waiting[name])] = name
                ended = wait(running, _POLL, return_when=FIRST_COMPLETED).done
                while not reports.empty():
                    report(*reports.get())
                for done in ended:
                    name = running.pop(done)
                    if (error := done.exception()) is not None:
                        error.add_note(f"in the job {name}; the same command goes on")
                        raise error
                    order.done(name)
                    report(0, f"{name}: done")
        except BaseException:
            stop.set()
            raise


def limit_threads(threads: int) -> None:
    """For the operations of torch and the products of NumPy."""
    import torch  # here, as the process that schedules has no use for it

    torch.set_num_threads(threads)
    threadpool_limits(threads)


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Makes SIGTERM what it is in Lightning's trainings, for the caller to tell what goes on."""

    def end(*_: Any) -> None:
        from pytorch_lightning.utilities.exceptions import SIGTERMException

        raise SIGTERMException

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(threads: int, reports: Any, stop: Any) -> None:
    """Makes this process one that ends with the one that started it, or when told so."""
    global _reports
    _reports = reports
    limit_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it says when to stop
    threading.Thread(target=_follow, args=(stop,), daemon=True).start()


def _follow(stop: Any) -> None:
    parent = multiprocessing.parent_process()
    while not stop.is_set():
        if parent is None or connection.wait([parent.sentinel], timeout=_POLL):
            break
    os._exit(1)


def _do(job: Job) -> None:
    job.do(named(lambda *told: _reports.put(told), job.name))
