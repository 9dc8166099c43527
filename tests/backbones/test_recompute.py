"""Gradient checkpointing changes memory and nothing else; nets survive torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backbones import backbone_info, build_backbone
from backbones.iresnet import ResidualBlock
from backbones.mobilefacenet import ConvUnit
from backbones.recompute import run_block


class TwoBlocks(nn.Module):
    """The smallest net with everything a checkpointed one has: norms, PReLU, a strided shortcut."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(3, 4, stride=2), ResidualBlock(4, 4)])
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = run_block(block, x, self.recompute)
        return x.mean((2, 3))


def outcome(net: nn.Module, run: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Embeddings, gradients and buffers after one training step."""
    embeddings = run(images)
    embeddings.sin().sum().backward()
    gradients = {f"{key}.grad": value.grad for key, value in net.named_parameters() if value.grad is not None}
    return {"embeddings": embeddings.detach(), **gradients, **dict(net.named_buffers())}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(got[key], value), key


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("r18", 3), ("mbf", 3), ("sphereface20", 3), ("tiny", 3), ("digits", 1), ("lsoftmax_mnist", 1),
        ("lenet_plus", 1), ("resnet18", 3),
    ],
)  # fmt: skip
def test_checkpointing_gives_the_same_step_bit_for_bit(name: str, channels: int) -> None:
    torch.manual_seed(0)
    plain = build_backbone(name, embedding_size=16, in_channels=channels)
    images = torch.rand(2, channels, *backbone_info(plain).image_size, generator=torch.Generator().manual_seed(0))
    frugal = build_backbone(name, embedding_size=16, in_channels=channels, gradient_checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    passes: list[str] = []
    layers = [module for module in frugal.modules() if isinstance(module, nn.Conv2d)]
    layers[len(layers) // 2].register_forward_hook(lambda *_: passes.append("pass"))
    expected, got = outcome(plain, plain, images), outcome(frugal, frugal, images)
    assert_equal(got, expected)
    counters = {int(value) for key, value in got.items() if key.endswith("num_batches_tracked")}
    assert counters <= {1}, "a batch was counted twice"
    assert passes == ["pass", "pass"], "nothing was recomputed"


def test_nothing_is_recomputed_without_gradients_or_in_eval_mode() -> None:
    net = TwoBlocks(recompute=True)
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    passes: list[str] = []
    net.blocks[0].register_forward_hook(lambda *_: passes.append("pass"))
    with torch.no_grad():
        net(images)
    net.eval()(images).sum().backward()
    assert passes == ["pass", "pass"]


def test_buffers_are_the_nets_own_again_after_an_error_in_the_second_pass() -> None:
    net = TwoBlocks(recompute=True)
    own = dict(net.named_buffers())
    total = net(torch.rand(2, 3, 8, 8)).sum()

    def fail(*_: object) -> None:
        raise RuntimeError("second pass")

    net.blocks[0].prelu.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="second pass"):
        total.backward()
    assert all(buffer is own[key] for key, buffer in net.named_buffers())


@pytest.mark.parametrize("recompute", [False, True])
def test_one_graph_captures_the_whole_net(recompute: bool) -> None:
    """fullgraph: a break would be an error; the capturing half of torch.compile, without waiting for a C++ compiler."""
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, compiled = TwoBlocks(False), TwoBlocks(recompute)
    compiled.load_state_dict(plain.state_dict())
    expected = outcome(plain, plain, images)
    assert_equal(outcome(compiled, torch.compile(compiled, backend="aot_eager", fullgraph=True), images), expected)


def test_a_real_net_compiles_inside_autocast() -> None:
    torch.compiler.reset()
    net = build_backbone("digits", embedding_size=8, in_channels=1)
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    state = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = net(images)
        net.load_state_dict(state)
        got = torch.compile(net, backend="aot_eager", fullgraph=True)(images)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_the_default_compiler_gives_the_same_values() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = ConvUnit(3, 4, kernel=3).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net)(images), net(images))
