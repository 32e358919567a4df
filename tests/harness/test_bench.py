"""The bench on tiny sizes: what it measures, not how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import bench

CPU = torch.device("cpu")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which Linux has"
)


def test_it_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bank.json"
    sizes = ["--sizes", "64", "--batch-sizes", "16", "--dim", "8", "--repeats", "3"]
    threads = torch.get_num_threads()
    try:
        bench.main(["bank", *sizes, "--threads", "1", "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert {row["variant"] for row in found["rows"]} == set(bench.VARIANTS)
    for row in found["rows"]:
        assert row["variant"] in printed
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert (row["size"], row["batch_size"]) == (64, 16)
        assert row["extra_memory_mib"] is None or row["extra_memory_mib"] >= 0
    lightly = next(row for row in found["rows"] if row["variant"] == bench.LIGHTLY)
    assert lightly["of_lightly"] == 1.0
    assert found["dim"] == 8
    assert torch.__version__.startswith(found["versions"]["torch"])


@pytest.mark.parametrize("name", list(bench.CRITERIA))
def test_banks_are_full_and_every_step_updates_them(name: str) -> None:
    seen = []
    original = bench.CRITERIA[name]

    def keep(size: bench.Size) -> torch.nn.Module:
        seen.append(original(size))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bench.CRITERIA, name, keep)
        step = bench.make_step(name, (64, 8), batch_size=16, device=CPU)
    bank = seen[0].memory_bank
    assert getattr(bank, "count", 64) == 64
    before = bank.bank.clone()
    step()
    assert not torch.equal(before, bank.bank)


def measured(expression: str) -> int:
    """A number that the bench finds, in a process where malloc hides nothing, as in the bench."""
    script = f"import torch\nfrom harness import bench\nprint({expression})"
    told = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)},
        cwd=Path(__file__).parents[2],
    )
    return int(told.stdout)


@needs_proc
def test_peak_memory_is_what_a_step_allocates_at_once() -> None:
    # 64 MiB and 32 MiB are held while 48 MiB more are made; all are given back after.
    step = "lambda: (torch.ones(2**24), torch.ones(2**23), torch.ones(3 * 2**22))[:0]"
    found = measured(f"bench.peak_extra_memory({step})") / 2**20
    assert found == pytest.approx(144.0, abs=4.0)


@needs_proc
def test_memory_of_lightlys_step_is_its_logits_and_its_copy_of_the_bank() -> None:
    # The (B, M) similarities, the (B, M + 1) logits and these over the temperature, and the bank.
    size, batch_size = (16384, 16), 64
    found = bench._cpu_extra_memory(size, batch_size, threads=1)
    assert set(found) == set(bench.VARIANTS)
    expected = 4 * size[0] * (3 * batch_size + size[1])
    assert found[bench.LIGHTLY] == pytest.approx(expected, rel=0.2)
    assert found[bench.PRODUCTS] == pytest.approx(4 * size[0] * batch_size, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tank"], "invalid choice: 'tank'"),
        (["bank", "--sizes", "0"], "--sizes: must be a positive whole number, got '0'"),
        (["bank", "--dim", "many"], "--dim: must be a positive whole number, got 'many'"),
        (["bank", "--fast"], "unrecognized arguments: --fast"),
        pytest.param(
            ["bank", "--device", "cuda"],
            "--device cuda: torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
