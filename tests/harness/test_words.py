"""The words of a command line that decide what comes out, and name its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.commands import harness, words

BANKS = ["experiment=banks", "data=digits", "trainer=quickstart"]
KEPT = ["data=digits", "trainer=quickstart"]
FOUND = [
    # what holds anyway
    (["seed=1"], []),
    (["trainer.epochs=20", "data=digits", "backbone.strides=[1, 2,2]"], []),
    (["seed=2", "seed=1"], []),
    (["experiment=synthetic", "seed=111"], []),
    (["experiment=banks", "method=moco", "bank=fifo", "scale=reduced"], []),
    (["experiment=mnist_latents", "scale=paper", "backbone=mnist_cnn"], []),
    # who is told, and where
    (["logger=csv", "output_root=/x", "overwrite=true", "logger.project=y"], []),
    (["data.keep=host", "data.workers=2", "experiment=synthetic", "experiment.workers=1"], []),
    # what decides
    (["seed=2", "experiment=quickstart"], ["seed=2"]),
    ([*BANKS, "bank=smc", "seed=1"], [*KEPT, "bank=smc"]),
    (["experiment=benchmark", "method=vicreg", "seed=07"], ["method=vicreg", "seed=7"]),
    (["experiment=benchmark", "scale=paper", "backbone=resnet18", "seed=42"], ["scale=paper"]),
    (["~experiment.rows.byol"], ["~experiment.rows.byol"]),
    (["experiment=banks", "bank=smc", "bank.ess_threshold=null", "bank.count_own_query=True"],
     ["bank=smc", "bank.ess_threshold=null", "bank.count_own_query=true"]),
    # an option of what another word chooses
    (["experiment=benchmark", "method=moco", "bank.size=64"], ["method=moco", "bank.size=64"]),
    (["experiment=benchmark", "method=vicreg", "method.learning_rate=0.1"],
     ["method=vicreg", "method.learning_rate=0.1"]),
    # one way to write it
    (["++seed=2", "trainer.warmup_ratio=2e-1"], ["seed=2", "trainer.warmup_ratio=0.2"]),
    (["data.root='/a b/c'"], ["data.root=/a b/c"]),
    # the same only because of another word
    (["experiment=banks", "experiment.bank_size=64", "bank.size=256"],
     ["experiment.bank_size=64", "bank.size=256"]),
    (["experiment=banks", "trainer=quickstart", "trainer.batch_size=64"], ["trainer=quickstart"]),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "kept"), FOUND, ids=lambda asked: " ".join(asked))
def test_only_what_decides_is_kept(asked: list[str], kept: list[str]) -> None:
    assert sorted(words(*asked)) == sorted(kept)


def test_a_default_or_a_logger_does_not_train_again(tmp_path: Path) -> None:
    asked = ["experiment=benchmark", "method=byol", "data=digits", "backbone=small_cnn"]
    first = harness(*asked, "trainer.epochs=0", "logger=csv", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    again = harness(*asked, "trainer.epochs=0", "logger=tensorboard", "seed=1", folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "Finished before" in again.stdout
    (folder,) = (tmp_path / "outputs" / "benchmark").iterdir()
    assert folder.name == "backbone=small_cnn,data=digits,method=byol,trainer.epochs=0"
