"""``python -m harness gpu``: what a GPU is best spent on, in order, within given minutes.

Tests marked gpu; speed and memory of banks, training steps and losses beside lightly's; then
ResNet-18 at the paper's 200 epochs on CIFAR-10 (bf16, channels_last, compiled), a row at a time.
After each step a small JSON file says what came of it. A step that is done is not repeated, unless
its options have changed, and a row goes on where it was interrupted: the same command, given
minutes again, does what is left. W&B is not needed.

Words like data.root=/where/it/is go to the rows' commands, after their own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.bench import OneLineParser, count, table
from harness.files import read_json, write_text

_ROOT = Path(__file__).resolve().parents[1]
_LEAST_SECONDS = 30  # below this nothing is begun
_TO_END = 20  # seconds a step is given to end by itself once its time is up
# By name, in order of worth: the options of each row beside those that all have.
_ROWS = {
    "fifo_in_batch": ("method=moco", "method.in_batch_negatives=true"),
    "smc": ("method=smc_gmje", "bank=smc", "method.in_batch_negatives=true"),
    "algorithm_2": ("method=smc_gmje",),
    "gmje_mdn": (
        "method=gmje_mdn",
        "method.guard=contrastive",
        "method.residual=true",
        "method.init_scale=0.32",
        "method.min_scale=0.3",
    ),
    "simclr": ("method=simclr",),
    "gje_entropy": ("method=gje_entropy",),
}


@dataclass(frozen=True)
class Step:
    """One command and what it leaves.

    Attributes:
        name: What the table calls it.
        command: The arguments of Python.
        folder: Where its ``results.json`` comes to lie, for a training.
    """

    name: str
    command: tuple[str, ...]
    folder: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Does what is left, within the minutes that the command line gives."""
    parser = OneLineParser("gpu", __doc__)
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="options of the rows")
    parser.add_argument("--minutes", type=count, default=55, help="for all of it (default: 55)")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these alone, failed ones too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="a folder")
    options = parser.parse_args(arguments)
    parser.check_device(options.device)
    deadline = time.monotonic() + 60.0 * options.minutes
    out = options.out.resolve()
    steps = _steps(out, options.device, options.overrides, quick=options.quick)
    unknown = set(options.only or ()) - {step.name for step in steps}
    if unknown:
        parser.error(f"--only: no such step: {', '.join(sorted(unknown))}")
    asked = [step for step in steps if not options.only or step.name in options.only]
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    over = ("done",) if options.only else ("done", "failed")
    console = Console()
    for step in asked:
        seconds = deadline - time.monotonic() - _TO_END
        if _report(out, step)["state"] not in over and seconds >= _LEAST_SECONDS:
            console.print(f"{step.name}: at most {seconds:.0f} s", soft_wrap=True)
            run_step(step, out, seconds=seconds)
    console.print(_table(out, asked))


def _steps(out: Path, device: str, overrides: Sequence[str], *, quick: bool) -> list[Step]:
    sizes = {
        "bank": "--sizes 256 4096 65536 --repeats 200",
        "step": "--backbones resnet18 --method moco --compile",
        "losses": "",
    }
    if quick:
        sizes = {
            "bank": "--sizes 64 --batch-sizes 16 --repeats 2",
            "step": "--backbones cifar_cnn --batch 8 --steps 1 --warmup 1 --rounds 1 --workers 1",
        }
    steps = [Step("tests", ("-m", "pytest", "-q", "-m", "gpu", "--no-header", "tests/gpu"))]
    for name, words in sizes.items():
        last = ("--device", device, "--out", str(out / f"bench_{name}.json"))
        steps.append(Step(name, ("-m", "harness", "bench", name, *words.split(), *last)))
    common = ["experiment=benchmark", "scale=paper", f"trainer.accelerator={device}", "logger=csv"]
    common += ["trainer.precision=bf16-mixed", "trainer.compile=true", "trainer.probe_every=20"]
    if quick:
        common += ["data=digits", "backbone=small_cnn", "trainer.epochs=1", "trainer.compile=false"]
        common += ["evaluation.probe=converged", "evaluation.knn_k=20"]
    for name, row in _ROWS.items():
        folder = out / "runs" / name
        options = (*common, *row, *overrides, f"output_root={folder}")
        steps.append(Step(name, ("-m", "harness", *options), folder))
    return steps


def run_step(step: Step, out: Path, *, seconds: float) -> None:
    """Runs a step's command for some seconds at most and writes what came of it."""
    started = time.monotonic()
    with (out / f"{step.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *step.command], cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        state = "unfinished"
        try:
            with suppress(subprocess.TimeoutExpired):
                state = "failed" if process.wait(timeout=seconds) else "done"
        finally:  # also where a signal ends this process
            process.terminate()  # nothing to one that has ended
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_TO_END)
            process.kill()
            process.wait()
    from harness.tracking import provenance  # Lightning takes seconds to import

    told = (out / f"{step.name}.log").read_text(errors="replace").splitlines()
    report = {
        **provenance(),
        "state": state,
        "command": ["python", *step.command],
        "seconds": round(_report(out, step)["seconds"] + time.monotonic() - started, 1),
        "last_lines": [line for line in told if line.strip()][-5:],
    }
    for path in step.folder.rglob("results.json") if step.folder else ():
        results = read_json(path)
        if results and results["command"] == list(step.command[2:]):
            report["results"] = results
    write_text(out / f"{step.name}.json", json.dumps(report, indent=2) + "\n")


def _report(out: Path, step: Step) -> dict[str, Any]:
    """What is known of a step, as it would be run now."""
    found: dict[str, Any] | None = read_json(out / f"{step.name}.json")
    if found and found["command"] == ["python", *step.command]:
        return found
    return {"state": "not begun", "seconds": 0.0, "last_lines": []}


def _table(out: Path, steps: Sequence[Step]) -> Table:
    """What is done and what is left."""
    made = table(str(out), "step", "state", "its last line", "s", words=3)
    for step in steps:
        report = _report(out, step)
        last = "".join(report["last_lines"][-1:])
        made.add_row(step.name, report["state"], last, f"{report['seconds']:.0f}")
    return made
