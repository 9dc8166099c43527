"""Fine-tuning from outside: a training checkpoint of arcface_torch's form, other classes, another embedding size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from backbones import build_backbone
from eval.embedder import load_embedder
from tests.eval.faces import face
from tests.test_train import train
from utils.images import encode_jpeg
from utils.record_set import write_record_set

CONFIG = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "tiny"
config.embedding_size = 8
config.rec = {data!r}
config.num_classes = 3
config.num_image = 12
config.num_epoch = 1
config.batch_size = 6
config.lr = 0.02
config.fp16 = False
config.dali = False
config.val_targets = []
"""


@pytest.mark.slow
def test_a_config_and_a_checkpoint_of_arcface_torch_train_on_other_classes(tmp_path: Path) -> None:
    images = [
        (encode_jpeg(face(identity, shot)), f"{identity}/{shot}.jpg") for identity in range(3) for shot in range(4)
    ]
    write_record_set(tmp_path, [4, 4, 4], images, (112, 112))
    config = tmp_path / "tuned.py"
    config.write_text(CONFIG.format(data=str(tmp_path)))
    torch.manual_seed(7)
    before = build_backbone("tiny", embedding_size=16).state_dict()
    nested = {
        "epoch": 19,
        "global_step": 100,
        "state_dict_backbone": {f"module.{name}": value for name, value in before.items()},
        "state_dict_softmax_fc": {"weight": torch.zeros(85742, 16)},
    }
    torch.save(nested, tmp_path / "checkpoint_gpu_0.pt")
    folder = tmp_path / "run"
    done = train(
        config, f"init_from={tmp_path / 'checkpoint_gpu_0.pt'}", f"output={folder}", "num_workers=0", "lr=1e-6"
    )
    assert done.returncode == 0, done.stderr
    assert "they are those of tiny" in done.stdout
    assert "init_from: of another shape: fc.weight 16 x 2048, here 8 x 2048" in done.stdout
    report = json.loads((folder / "init_report.json").read_text())["backbone"]
    assert report["weights_of"] == {"network": "tiny", "embedding_size": 16, "in_channels": 3}
    assert set(report["initialised_names"]) == {
        "fc.weight", "fc.bias", "features.weight", "features.bias", "features.running_mean", "features.running_var",
    }  # fmt: skip
    assert report["loaded"]["tensors"] == len(before) - 6
    after = torch.load(folder / "model.pt", weights_only=True)
    moved = (after["stem.0.weight"] - before["stem.0.weight"]).abs().max()
    assert 0 < moved < 1e-3, "trained on from the given weights"
    assert load_embedder(folder)(torch.zeros(1, 112, 112, 3, dtype=torch.uint8)).shape == (1, 8)
