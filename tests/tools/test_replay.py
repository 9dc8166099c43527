"""Dumps of bad steps, run again: the same bits, the place of the fault, and what is said of damaged dumps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from backbones import BACKBONES
from sources.synthetic import SyntheticSource
from tests.ranks import RankPool
from tests.training.runs import NETS, batches_of, make_ranks, make_run
from tools.replay import ALIKE, OTHER, SAME, UNUSABLE, main, replay, report
from training.build import build_run
from training.dumped_run import DumpError, read_dump
from training.inputs import Inputs
from training.step import NonFiniteError, train_step
from utils.config import Config
from utils.images import ImageFormat

# Batch-norm and dropout, running statistics, sampling, accumulation, a margin that warms up: all must be repeated.
KEYS: dict[str, Any] = {
    "head": "adaface", "head_options": {"momentum": 0.3}, "sample_rate": 0.6, "gradient_acc": 2, "batch_size": 3,
    "margin_warmup_epochs": 1.0,
}  # fmt: skip


def dumped(folder: str, fault: str) -> str:
    """Two good steps, then a bad one."""
    run = make_run("norm", output=folder, **KEYS)
    net: Any = run.backbone
    for step, batches in enumerate(batches_of(run, 0, 3)):
        if step == 2 and fault == "weights":
            with torch.no_grad():  # finite weights whose products are not
                net.fc.weight.sign_().mul_(3e38)
        elif step == 2 and dist.get_rank() == 1:  # of the machine: nothing in the run's state explains it
            net.conv.bias.register_hook(lambda gradient: gradient * torch.nan)
        try:
            train_step(run, batches, step)
        except NonFiniteError as error:
            return str(error)
    return "never"


def replayed(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this rank finds, and what the run had."""
    BACKBONES["norm"] = NETS["norm"]
    try:
        dump = read_dump(Path(folder))
        return replay(dump, make_ranks(), has_anomaly=False), dict(dump.facts)
    finally:
        del BACKBONES["norm"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_bad_step_is_repeated_bit_for_bit(
    ranks: RankPool, tmp_path: Path, capsys: pytest.CaptureFixture[str], world_size: int
) -> None:
    text = ranks.run(world_size, dumped, str(tmp_path), "weights")[0]
    folder = tmp_path / "dumps" / "step_000000002"
    assert f"`python -m tools.replay {folder}` runs this step again" in text
    results = ranks.run(world_size, replayed, str(folder))
    for rank, (found, facts) in enumerate(results):
        then = facts["ranks"][rank]
        assert found["loss"] == facts["loss"]
        assert (found["embeddings"], found["gradients"]) == (then["embeddings"], then["gradients"])
        assert {"conv.weight", "fc.bias", "prototypes.0"} <= then["gradients"].keys()
        assert found["is_bad"]
        assert text.startswith(found["text"])
        assert found["forward"].startswith("fc (Linear): output (3, 6)")
        assert "; weight (6, 36) in " in found["forward"]
    dump = read_dump(folder)
    found = [found for found, _ in results]
    assert report(dump, "cpu", found, shows_all=True) == SAME
    said = capsys.readouterr().out
    assert "repeated bit for bit: loss, embeddings and gradients on all ranks" in said
    assert "  conv.weight  " in said
    dump.facts["ranks"][-1]["embeddings"][0] = "0" * 16
    assert report(dump, "cpu", found, shows_all=False) == ALIKE
    expected = f"not bit for bit: 1 things differ, first: the embeddings of rank {world_size - 1}"
    assert expected in capsys.readouterr().out


def test_a_fault_that_is_not_in_the_dump_is_not_repeated(ranks: RankPool, tmp_path: Path) -> None:
    text = ranks.run(2, dumped, str(tmp_path), "machine")[0]
    assert "the gradient is not finite" in text
    folder = tmp_path / "dumps" / "step_000000002"
    results = ranks.run(2, replayed, str(folder))
    assert report(read_dump(folder), "cpu", [found for found, _ in results], shows_all=False) == OTHER
    for rank, (found, facts) in enumerate(results):
        then = facts["ranks"][rank]
        differing = [name for name, value in then["gradients"].items() if found["gradients"][name] != value]
        assert (found["is_bad"], found["loss"], differing) == (False, facts["loss"], ["conv.bias"])


def bad_run(folder: str) -> None:
    """A run with a backbone of the registry, whose weights make the second step overflow."""
    source = SyntheticSource(7, 24, ImageFormat(28, 28, 1))
    keys = {"network": "digits", "embedding_size": 8, "head": "softmax", "batch_size": 4, "num_workers": 0}
    config = Config(rec="synthetic", output=folder, num_epoch=3, **keys)  # type: ignore[arg-type]
    run = build_run(config, make_ranks(), Inputs(source))
    first, second = batches_of(run, 0, 2)
    train_step(run, first, 0)
    with torch.no_grad():
        next(run.backbone.parameters()).mul_(1e38)
    with pytest.raises(NonFiniteError):
        train_step(run, second, 1)


@pytest.mark.slow
def test_the_command_line_starts_the_ranks_itself(
    ranks: RankPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks.run(2, bad_run, str(tmp_path / "run"))
    folder = shutil.move(tmp_path / "run" / "dumps" / "step_000000001", tmp_path / "sent")  # to a colleague
    shutil.rmtree(tmp_path / "run")
    assert main([str(folder), "--device", "cpu", "--anomaly"]) == SAME
    said = capsys.readouterr().out
    assert "repeated bit for bit: loss, embeddings and gradients on all ranks" in said
    assert "rank 1\n  forward:  " in said
    assert "anomaly:  Function " in said


def test_a_damaged_dump_is_told(ranks: RankPool, tmp_path: Path) -> None:
    ranks.run(1, dumped, str(tmp_path), "weights")
    folder = tmp_path / "dumps" / "step_000000002"
    whole = (folder / "rank_000.pt").read_bytes()
    (folder / "rank_000.pt").write_bytes(whole[:-100])
    with pytest.raises(DumpError, match=r"rank_000.pt: cannot be read \(.+\): the dump is incomplete or damaged"):
        ranks.run(1, replayed, str(folder))
    torch.save({"prototypes": torch.zeros(3, 6), "buffers": {}, "images": [], "labels": []}, folder / "rank_000.pt")
    with pytest.raises(DumpError, match=r"does not fit together .*other tensors than this code's: .*running_mean"):
        ranks.run(1, replayed, str(folder))
    torch.save(Path("code"), folder / "rank_000.pt")
    with pytest.raises(DumpError, match="cannot be read"):
        ranks.run(1, replayed, str(folder))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "not a dump of format 1"),
        ('{"format": 1}', "step, world_size, threads, loss"),
    ],
)
def test_what_is_no_dump_is_told(tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "dump.json").write_text(content)
    with pytest.raises(DumpError, match=text):
        read_dump(tmp_path)
    assert main([str(tmp_path)]) == UNUSABLE
