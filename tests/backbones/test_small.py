"""The CPU-sized nets: shapes, precision, initial values, gradient checkpointing, and that each of them can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from backbones.small import SmallResidualNet, digits, small, tiny

NETS = {"small": (small, 3, 112), "tiny": (tiny, 3, 112), "digits": (digits, 1, 28)}


def _batch(name: str, size: int = 3) -> Tensor:
    _, channels, edge = NETS[name]
    return torch.randn(size, channels, edge, edge, generator=torch.Generator().manual_seed(5))


def _build(name: str, **options: object) -> SmallResidualNet:
    torch.manual_seed(3)
    return NETS[name][0](**options)  # type: ignore[operator]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("embedding_size", [2, 96])
def test_embeddings_have_the_size_asked_for_and_are_float32(name: str, embedding_size: int) -> None:
    net = _build(name, embedding_size=embedding_size).eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(_batch(name))
    assert out.shape == (3, embedding_size)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", NETS)
def test_the_output_layers_are_not_rounded_under_autocast(name: str) -> None:
    net = _build(name).eval()
    seen: list[Tensor] = []
    net.fc.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        net(_batch(name))
    assert seen[0].dtype == torch.float32
    assert not torch.equal(seen[0], seen[0].bfloat16().float())


@pytest.mark.parametrize("name", NETS)
def test_a_fresh_net_gives_embeddings_of_about_the_root_of_their_size(name: str) -> None:
    net = _build(name, embedding_size=64).train()
    with torch.no_grad():
        norms = net(_batch(name, 16)).norm(dim=1)
    assert norms.mean().item() == pytest.approx(8.0, rel=0.1)


def test_initial_values_are_what_the_docstring_says() -> None:
    net = _build("small")
    assert net.fc.weight.std().item() == pytest.approx(net.fc.in_features**-0.5, rel=0.02)
    assert not net.fc.bias.any()
    conv = net.blocks[-1].conv2
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (conv.out_channels * 9)) ** 0.5, rel=0.02)
    before = net.fc.weight.clone()
    net.reset_parameters()
    assert not torch.equal(before, net.fc.weight)


@pytest.mark.parametrize("name", NETS)
def test_gradient_checkpointing_changes_neither_gradients_nor_running_statistics(name: str) -> None:
    plain, recomputing = _build(name), _build(name, gradient_checkpointing=True)
    x = _batch(name)
    for net in (plain, recomputing):
        net.train()
        net(x).pow(3).mean().backward()
    for (key, one), (_, other) in zip(plain.named_parameters(), recomputing.named_parameters(), strict=True):
        assert one.grad is not None, key
        torch.testing.assert_close(other.grad, one.grad, msg=key)
    for (key, one), (_, other) in zip(plain.named_buffers(), recomputing.named_buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=key)


@pytest.mark.parametrize("name", NETS)
def test_a_wrong_image_is_refused_with_both_shapes(name: str) -> None:
    net = _build(name)
    with pytest.raises(ValueError, match=rf"{name}: got an input of shape \(2, 4, 30, 30\), needs \(B, "):
        net(torch.zeros(2, 4, 30, 30))


def test_dropout_acts_in_training_only() -> None:
    net = _build("digits", dropout=0.5)
    x = _batch("digits", 8)
    net.eval()
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_in_channels_is_taken() -> None:
    assert digits(in_channels=3)(torch.randn(2, 3, 28, 28)).shape == (2, 64)


@pytest.mark.parametrize("name", NETS)
def test_every_net_can_learn_two_kinds_of_image(name: str) -> None:
    net = _build(name, embedding_size=8).train()
    x = _batch(name, 8)
    x[::2] += torch.linspace(-2, 2, x.shape[-1])
    target = torch.tensor([1.0, -1.0] * 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = nn.functional.softplus(-target * net(x)[:, 0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses
