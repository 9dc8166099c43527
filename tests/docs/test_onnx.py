"""docs/onnx.md: its commands print what it shows, and its example needs neither PyTorch nor this project."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from backbones import backbone_info, build_backbone
from eval.embedder import load_embedder
from tests.docs.console import ROOT, matches, read_steps
from tests.eval.faces import face
from tools.export import onnx_file
from tools.export.graph import to_onnx
from tools.export_onnx import main
from utils.images import decode_image, encode_jpeg

PAGE = ROOT / "docs" / "onnx.md"
RUN = {
    "commit": "0" * 40,
    "fingerprint": {"data": {"kind": "records", "images": 9, "classes": 3, "content_sha256": "1" * 64}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page takes for granted: the run work_dirs/mine, and two faces."""
    folder = tmp_path_factory.mktemp("place")
    run = folder / "work_dirs" / "mine"
    run.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build_backbone("small", embedding_size=256).state_dict(), run / "model.pt")
    (run / "config.json").write_text(json.dumps({"network": "small", "head": "cosface"}))
    (run / "run.json").write_text(json.dumps(RUN))
    for name, identity in (("one.jpg", 1), ("other.jpg", 2)):
        (folder / name).write_bytes(encode_jpeg(face(identity)))
    return folder


def test_commands_and_example(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, and traced once: starting PyTorch for each command would take longer than the command."""
    traced: list[bytes] = []

    def once(backbone: torch.nn.Module, *_: object) -> onnx.ModelProto:
        if not traced:
            traced.append(to_onnx(backbone, backbone_info(backbone), 20).SerializeToString())
        return onnx.ModelProto.FromString(traced[0])

    monkeypatch.setattr(onnx_file, "to_onnx", once)
    monkeypatch.chdir(place)
    steps = read_steps(PAGE)
    assert len(steps) >= 4
    for step in steps:
        words = shlex.split(step.command)
        assert words[:3] == ["python", "-m", "tools.export_onnx"]
        assert main(words[3:]) == 0, step.command
        printed = capsys.readouterr().out.splitlines()
        assert matches(step.shown, printed), f"onnx.md:{step.line}: {step.command}\n" + "\n".join(printed)
    check_example(place)


def check_example(place: Path) -> None:
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    assert len(found[0].splitlines()) <= 10
    alone = "\nimport sys\nassert not {'torch', 'eval', 'utils'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", found[0] + alone], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    images = [torch.from_numpy(decode_image((place / name).read_bytes())) for name in ("one.jpg", "other.jpg")]
    one, other = load_embedder(place / "work_dirs" / "mine")(torch.stack(images))
    assert float(done.stdout.split()[1]) == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), abs=2e-4)


def test_the_page_shows_the_default_names() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in ("model.onnx", "model_uint8.onnx", "model_float16_fp16.onnx", "model.safetensors"):
        assert f"`{name}`" in text
