"""tools.weights from the inside: what it says of whole, damaged and foreign files, and the table of nets."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from backbones import BACKBONES, build_backbone
from backbones.registry import WITH_OPTIONS
from tools.weights import main, net_facts

DOC = Path(__file__).parents[2] / "docs" / "backbones.md"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    status = main([*arguments, "--json"])
    facts: dict[str, object] = json.loads(capsys.readouterr().out)
    return status, facts


def test_a_checkpoint_of_arcface_torch_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build_backbone("tiny", embedding_size=16)
    file = tmp_path / "checkpoint_gpu_0.pt"
    torch.save({"state_dict_backbone": {f"module.{k}": v for k, v in net.state_dict().items()}}, file)
    status, facts = told(capsys, "describe", str(file))
    parameters = sum(value.numel() for value in net.parameters())
    assert (status, facts["network"], facts["embedding_size"], facts["in_channels"]) == (0, "tiny", 16, 3)
    assert facts["parameters"] == parameters
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (facts["tensors"], facts["dtypes"], facts["not_finite"]) == (len(net.state_dict()), ["float32"], [])
    assert main(["describe", str(file)]) == 0
    assert f"network tiny, embedding_size 16, in_channels 3, {parameters:,} parameters" in capsys.readouterr().out


def test_what_is_wrong_with_a_file_is_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = build_backbone("tiny", embedding_size=16).state_dict()
    torch.save({**state, "fc.bias": torch.full((16,), float("inf"))}, tmp_path / "model.pt")
    status, facts = told(capsys, "describe", str(tmp_path))  # as a run folder
    assert (status, facts["not_finite"], facts["network"]) == (1, ["fc.bias"], "tiny")
    del state["fc.weight"]
    torch.save(state, tmp_path / "model.pt")
    status, facts = told(capsys, "describe", str(tmp_path / "model.pt"))
    assert (status, facts["network"]) == (1, None)
    assert "Nearest is tiny: fc.weight is missing" in str(facts["problem"])
    (tmp_path / "model.pt").write_bytes(b"no weights")
    status, facts = told(capsys, "describe", str(tmp_path / "model.pt"))
    assert status == 2
    assert "model.pt" in str(facts["error"])
    assert main(["describe", str(tmp_path / "absent")]) == 2
    assert "absent: no such model" in capsys.readouterr().err


def test_options_that_the_shapes_tell_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = build_backbone("lsoftmax_mnist", embedding_size=16, in_channels=1, width=0.25)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    status, facts = told(capsys, "describe", str(tmp_path))
    assert (status, facts["network"], facts["options"]) == (0, "lsoftmax_mnist", {"width": 0.25})
    assert main(["describe", str(tmp_path)]) == 0
    assert "network lsoftmax_mnist, embedding_size 16, in_channels 1, width 0.25, " in capsys.readouterr().out


def test_multiplications_are_those_of_hand() -> None:
    facts = net_facts("vit_t")
    tokens, width = 144, 256
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    rest = tokens * 9 * 9 * 3 * width + tokens * width * width + width * 512
    assert facts["gmac"] == pytest.approx((12 * block + rest) / 1e9)
    assert facts["parameters"] == 19137792


def test_the_page_lists_every_net_with_its_numbers() -> None:
    rows = {}
    for line in DOC.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"`\w+`", cells[0]) and len(cells) > 4:
            rows[cells[0].strip("`")] = cells
    names = [name for name in BACKBONES if not re.search(r"_dp005_", name)]
    assert list(rows) == names
    for name in ("r18", "mbf", "vit_s", "sphereface64", "small", "digits"):
        facts = net_facts(name)
        assert rows[name][2:4] == [f"{facts['parameters'] / 1e6:.1f}", f"{facts['gmac']:.2f}"], name


def test_the_page_has_the_parameters_of_nets_for_classification() -> None:
    line = r"^\| `(\w+)`, (\w+)(, stem=\"imagenet\")? \| \d+ \| \d+ \| ([\d,]+) \| ([\d,]+) \|"
    rows = re.findall(line, DOC.read_text("utf-8"), re.MULTILINE)
    assert {name for name, *_ in rows} == WITH_OPTIONS - {"plain"}  # whose table is the reader's
    for name, color, stem, *numbers in rows:
        options = {"stem": "imagenet"} if stem else {}
        sizes = {"embedding_size": 2 if name == "lenet_plus" else 512, "in_channels": 1 if color == "grey" else 3}
        for width, number in zip((1.0, 0.25), numbers, strict=True):
            with torch.device("meta"):
                net = build_backbone(name, **sizes, width=width, **options)
            assert sum(value.numel() for value in net.parameters()) == int(number.replace(",", "")), (name, width)
