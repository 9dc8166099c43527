"""The transformers: what they draw in training, by whom, and that recomputing, layouts and compilers change nothing."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import build_backbone, vit
from backbones.vit import NETS, Attention, VisionTransformer

NOTHING_RANDOM = {"drop_path_rate": 0.0, "mask_ratio": 0.0}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every net has 3 blocks of 16 channels: the same code in a hundredth of the time."""
    for name in vit.SIZES:
        monkeypatch.setitem(vit.SIZES, name, (16, 3))


def faces(batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1


def outcome(net: nn.Module, images: Tensor, seed: int = 5, run: nn.Module | None = None) -> dict[str, Tensor]:
    """Embeddings, gradients and buffers after one training pass with that seed."""
    net.zero_grad()
    torch.manual_seed(seed)
    embeddings = (net if run is None else run)(images)
    embeddings.sin().sum().backward()
    gradients = {f"{key}.grad": value.grad for key, value in net.named_parameters() if value.grad is not None}
    return {"embeddings": embeddings.detach().clone(), **gradients, **dict(net.named_buffers())}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_attention_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(32).double()
    tokens = torch.randn(2, 5, 32, dtype=torch.float64)
    query, key, value = attention.qkv(tokens).split(32, dim=-1)
    heads = []
    for head in range(8):
        q, k, v = (part[..., 4 * head : 4 * head + 4] for part in (query, key, value))
        heads.append(F.softmax(q @ k.mT / 4**0.5, dim=-1) @ v)
    torch.testing.assert_close(attention(tokens), attention.proj(torch.cat(heads, dim=-1)))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("options", [{}, {"drop_path_rate": 0.5}, {"mask_ratio": 0.5}, {"dropout": 0.3}])
def test_a_pass_is_a_function_of_its_seed_recomputed_or_not(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    plain = build_backbone("vit_t", embedding_size=8, **options)
    frugal = build_backbone("vit_t", embedding_size=8, gradient_checkpointing=True, **options)
    frugal.load_state_dict(plain.state_dict())
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    passes: list[str] = []
    frugal.get_submodule("blocks.1.mlp").register_forward_hook(lambda *_: passes.append("pass"))
    first = outcome(plain, faces())
    assert equal(outcome(frugal, faces()), first)
    assert passes == ["pass", "pass"], "nothing was recomputed"
    plain.load_state_dict(state)
    other = outcome(plain, faces(), seed=6)
    assert not torch.equal(other["embeddings"], first["embeddings"]), "another seed is another pass"


@pytest.mark.usefixtures("few")
def test_without_draws_the_seed_does_not_matter_and_eval_never_draws() -> None:
    net = build_backbone("vit_t", embedding_size=8, **NOTHING_RANDOM)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    first = outcome(net, faces(), seed=1)
    net.load_state_dict(state)
    assert equal(outcome(net, faces(), seed=2), first)
    net = build_backbone("vit_t", embedding_size=8, drop_path_rate=0.5, mask_ratio=0.5).eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(net(faces()), net(faces()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("few")
def test_masked_tokens_are_left_out_of_the_blocks_and_replaced_at_the_end() -> None:
    net = build_backbone("vit_t", embedding_size=8, drop_path_rate=0.0, mask_ratio=0.25)
    seen: dict[str, Tensor] = {}
    net.get_submodule("blocks.0").register_forward_hook(lambda _, given, __: seen.update(first=given[0]))
    net.get_submodule("norm").register_forward_hook(lambda _, __, got: seen.update(last=got))
    net.get_submodule("feature").register_forward_hook(lambda _, given, __: seen.update(all=given[0]))
    net(faces(3))
    assert seen["first"].shape == (3, 108, 16)
    tokens = seen["all"].view(3, 144, 16)
    is_masked = (tokens == net.get_parameter("mask_token")).all(dim=2)
    assert is_masked.sum(dim=1).tolist() == [36, 36, 36]
    assert not torch.equal(is_masked[0], is_masked[1]), "each image has its own"
    entering = net.get_submodule("patch_embed")(faces(3)) + net.get_parameter("pos_embed")
    for image in range(3):
        # A token that went through the blocks comes back to its own place.
        places = [int((entering[image] == token).all(dim=1).nonzero()) for token in seen["first"][image]]
        assert sorted(places) == (~is_masked[image]).nonzero().flatten().tolist()
        assert torch.equal(tokens[image, places], seen["last"][image])


@pytest.mark.usefixtures("few")
def test_stochastic_depth_grows_with_depth_and_keeps_the_mean() -> None:
    net = VisionTransformer("vit_t", drop_path_rate=0.4)
    torch.manual_seed(0)
    scales = net._draw_branch_scales(torch.empty(20000, 1, 1))
    assert scales.shape == (3, 2, 20000, 1, 1)
    assert torch.equal(scales[0], torch.ones_like(scales[0])), "the first block always stays"
    left_out = (scales == 0).float().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(left_out, torch.tensor([0.0, 0.2, 0.4]), atol=0.01, rtol=0)
    torch.testing.assert_close(scales.mean(dim=(1, 2, 3, 4)), torch.ones(3), atol=0.02, rtol=0)


@pytest.mark.usefixtures("few")
def test_every_trained_parameter_gets_a_gradient() -> None:
    # DistributedDataParallel waits for all of them.
    for options in ({}, NOTHING_RANDOM):
        net = build_backbone("vit_t", embedding_size=8, **options)
        net(faces()).sin().sum().backward()
        assert [key for key, value in net.named_parameters() if value.requires_grad and value.grad is None] == []
        assert net.get_parameter("mask_token").requires_grad == (not options)


def test_one_graph_captures_training_with_all_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """fullgraph: a break would be an error; the eager backend draws what the plain net draws."""
    monkeypatch.setitem(vit.SIZES, "vit_t", (8, 1))
    torch.compiler.reset()
    net = build_backbone("vit_t", embedding_size=8, drop_path_rate=0.5)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    expected = outcome(net, faces())
    net.load_state_dict(state)
    assert equal(outcome(net, faces(), run=torch.compile(net, backend="eager", fullgraph=True)), expected)


@pytest.mark.usefixtures("few")
def test_channels_last_changes_nothing_but_the_layout() -> None:
    net = build_backbone("vit_t", embedding_size=8, **NOTHING_RANDOM).eval()
    expected = net(faces())
    turned = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(turned(faces().to(memory_format=torch.channels_last)), expected)
    assert not net.get_parameter("patch_embed.proj.weight").is_contiguous()


@pytest.mark.usefixtures("few")
def test_names_say_the_rates() -> None:
    assert list(inspect.signature(VisionTransformer).parameters)[-2:] == ["drop_path_rate", "mask_ratio"]
    for name, (size, drop_path_rate, mask_ratio) in NETS.items():
        with torch.device("meta"):
            net = build_backbone(name)
        assert (net.drop_path_rate, net.mask_ratio) == (drop_path_rate, mask_ratio)
        if name != size:
            assert name.startswith(f"{size}_dp005_mask")
            assert drop_path_rate == 0.05


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"backbone 'vit_t': mask_ratio is 1\.0, must be in \[0, 1\)"):
        build_backbone("vit_t", mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"unknown option depth; its options are: drop_path_rate, mask_ratio"):
        build_backbone("vit_t", depth=3)
    with torch.device("meta"), pytest.raises(ValueError, match=r"vit_s: got an input of shape .*\(B, 3, 112, 112\)"):
        build_backbone("vit_s")(torch.empty(2, 3, 224, 224))
