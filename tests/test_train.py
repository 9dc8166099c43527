"""train.py from outside: whole, interrupted, broken and refused runs on a small record set, in their own processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eval.bin_files import write_bin
from eval.embedder import load_embedder
from eval.saved_scores import read_scores
from tests.eval.faces import face, jpeg_pairs
from utils.images import encode_jpeg
from utils.record_set import write_record_set

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
from easydict import EasyDict as edict
config = edict()
config.rec = {data!r}
config.val_targets = ("pairs",)
config.network, config.embedding_size = "tiny", 16
config.head, config.head_options = "cosface", {{"scale": 16.0, "margin": 0.1}}
config.batch_size, config.num_epoch, config.lr, config.dropout = 8, 3, 0.05, 0.2
config.verbose, config.frequent, config.checkpoint_interval, config.num_workers, config.threads = 0, 2, 2, 1, 1
"""
# The launcher's variables of an outer run must not reach these.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
} | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file for 4 identities of 8 images, and 20 pairs of others to verify on."""
    folder = tmp_path_factory.mktemp("data")
    counts = [8] * 4
    images = [
        (encode_jpeg(face(identity, shot)), f"{identity}/{shot}.jpg")
        for identity, count in enumerate(counts)
        for shot in range(count)
    ]
    write_record_set(folder, counts, images, (112, 112))
    write_bin(folder / "pairs.bin", *jpeg_pairs(20))
    path = folder / "small_run.py"
    path.write_text(CONFIG.format(data=str(folder)))
    return path


def command(config: Path, *arguments: str, ranks: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, *launcher, "train.py", str(config), *arguments]


def train(config: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, *arguments, ranks=ranks), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )


def metrics(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.slow
def test_two_ranks_train_verify_and_save(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = train(config, "batch_size=4", "num_epoch=2", f"output={folder}", ranks=2)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "image_format.json", "run.json", "metrics.jsonl", "training.log", "tensorboard", "checkpoints",
        "model.pt", "best.pt", "report.html", "verification", ".lock",
    }  # fmt: skip
    scores, is_same = read_scores(folder / "verification", "pairs")
    assert len(scores) == len(is_same) == 20
    assert "last verification, step 8" in (folder / "report.html").read_text()
    steps = metrics(folder, "train")
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    expected = (
        "kind time step epoch loss lr grad_norm loss_scale images_per_second data_wait target_cosine memory_bytes "
        "skipped_steps bad_records"
    )
    assert " ".join(steps[0]) == expected
    scores = metrics(folder, "verification")
    assert [(line["step"], line["protocol"]) for line in scores] == [
        (step, protocol) for step in (0, 4, 8) for protocol in ("insightface", "exact")
    ]
    assert all(line["dataset"] == "pairs" and line["flip"] is True for line in scores)
    resolved = json.loads((folder / "config.json").read_text())
    assert (resolved["num_classes"], resolved["num_image"]) == (4, 32)
    origin = json.loads((folder / "run.json").read_text())
    assert origin["ranks"] == 2
    assert origin["command"].startswith("torchrun --nproc_per_node=2 train.py")
    embedding = load_embedder(folder)(torch.from_numpy(face(1)).unsqueeze(0))
    assert embedding.shape == (1, 16)
    assert "images/s" in done.stdout
    assert "data wait" in done.stdout
    assert "step/s" not in done.stderr, "no progress bar where stderr is no terminal"

    again = train(config, "batch_size=4", "num_epoch=2", f"output={folder}")
    assert again.returncode == 2
    assert "already holds a run (model.pt, best.pt, step_" in again.stderr
    assert "resume=True" in again.stderr


def stop_after(config: Path, text: str, *arguments: str, kind: int = signal.SIGTERM) -> int:
    """Starts a run, signals its whole process group, readers included, when a line with `text` appears."""
    process = subprocess.Popen(
        command(config, *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            os.killpg(process.pid, kind)
    return process.wait(timeout=100)


@pytest.mark.slow
def test_stopped_broken_and_resumed_runs_end_like_an_uninterrupted_one(config: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    assert stop_after(config, "step 2/12", f"output={folder}") == 143
    assert "stopped by SIGTERM after step" in (folder / "training.log").read_text()
    assert stop_after(config, "step 6/12", f"output={folder}", "resume=True", kind=signal.SIGINT) == 143
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    model = (folder / "model.pt").read_bytes()

    broken = train(config, f"output={folder}", "resume=True", "head_options.scale=1e38")
    assert broken.returncode == 1
    assert "NonFiniteError: step" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == checkpoints
    assert (folder / "model.pt").read_bytes() == model

    resumed = train(config, f"output={folder}", "resume=True")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from" in resumed.stdout
    # Checkpoints fall on the same steps in both, so that running statistics are averaged at the same ones.
    uninterrupted = train(config, f"output={whole}")
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    one, other = (torch.load(path / "model.pt", weights_only=True) for path in (folder, whole))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert [line["step"] for line in metrics(folder, "train")] == [2, 4, 6, 8, 10, 12]
    assert [(line["step"], line["accuracy"]) for line in metrics(folder, "verification")] == [
        (line["step"], line["accuracy"]) for line in metrics(whole, "verification")
    ]

    records = [(folder / name).read_bytes() for name in ("config.json", "run.json")]
    finished = train(config, f"output={folder}", "resume=True", "lr=0.01")
    assert finished.returncode == 0, finished.stderr
    assert "nothing is left to train" in finished.stdout
    assert [(folder / name).read_bytes() for name in ("config.json", "run.json")] == records


@pytest.mark.slow
def test_check_tells_all_problems_at_once_and_starts_nothing(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    good = train(config, "--check", f"output={folder}")
    assert good.returncode == 0, good.stderr
    assert "32 images of 4 classes" in good.stdout
    bad = train(config, "precision=fp16", "num_classes=5", "val_targets=('lfw',)", f"output={folder}", "--check")
    assert bad.returncode == 2
    for text in ("num_classes = 5, but", "precision = 'fp16' needs a GPU", "val_targets: "):
        assert text in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not folder.exists()
