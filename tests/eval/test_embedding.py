"""Streaming pairs through a model, alone and over ranks; training mode, errors on one rank, precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from eval.embedder import EmbedderError, ModuleEmbedder, evaluating, unwrap
from eval.embedding import EmbeddingError, embed_pairs
from eval.pairs import PairError, PairSet, load_pairs, write_bin
from eval.verification import VerificationError, verification_record, verify
from tests.eval.faces import PatternNet, memory_pairs, pattern_embedder, write_lfw_images
from utils.images import to_model_input


def test_batches_flip_and_order():
    pairs = memory_pairs(7)
    images = torch.from_numpy(np.stack(pairs.images))
    plain, mirrored = pattern_embedder(images), pattern_embedder(images.flip(2))
    for batch_size in (1, 4, 14, 50):
        got = embed_pairs(pattern_embedder, pairs, batch_size=batch_size, flip=False)
        np.testing.assert_allclose(got, plain.numpy(), atol=1e-5)
        got = embed_pairs(pattern_embedder, pairs, batch_size=batch_size, flip=True)
        np.testing.assert_allclose(got, (plain + mirrored).numpy(), atol=1e-5)
    assert not torch.allclose(plain, mirrored)


def test_the_module_sees_normalised_pixels_without_gradients():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append((images, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return images.flatten(1)[:, :8].double()

    batch = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8)
    embeddings = ModuleEmbedder(Spy())(batch)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(seen[0][0], to_model_input(batch))
    assert seen[0][1:] == (False, True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_come_in_the_layout_of_the_kernels(layout):
    class Spy(nn.Conv2d):
        def forward(self, images):
            self.seen = images
            return super().forward(images).mean(dim=(2, 3))

    model = Spy(3, 4, 3).to(memory_format=layout)
    batch = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    embeddings = ModuleEmbedder(model)(batch)
    assert model.seen.is_contiguous(memory_format=layout)
    torch.testing.assert_close(embeddings, model(to_model_input(batch)).detach())


def test_reduced_precision_runs_under_autocast():
    batch = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(112 * 112 * 3, 4))
    exact, rounded = ModuleEmbedder(model)(batch), ModuleEmbedder(model, precision="bf16")(batch)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0.05)
    with pytest.raises(ValueError, match="unknown precision 'fp8'; allowed: fp32, bf16, fp16"):
        ModuleEmbedder(model, precision="fp8")


def test_verify_evaluates_and_gives_every_mode_back():
    pairs, model = memory_pairs(40), PatternNet()
    model.train()
    model.norm.eval()  # a frozen batch norm inside a training model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    results = verify(model, pairs, batch_size=16)
    assert [result.protocol for result in results] == ["insightface", "exact"]
    assert results[0].accuracy > 0.9
    assert results == verify(model, pairs, batch_size=7)  # dropout would differ
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="inside"), evaluating(model):
        raise RuntimeError("inside")
    assert model.drop.training


def test_non_finite_embeddings_stop_verification():
    class Diverged(PatternNet):
        def forward(self, images):
            return super().forward(images) * torch.tensor(float("nan"))

    with pytest.raises(VerificationError, match="80 of 80 embeddings hold NaN"):
        verify(Diverged(), memory_pairs(40))


def test_the_metrics_line_has_the_agreed_keys():
    pairs = memory_pairs(40)
    result = verify(PatternNet(), pairs, protocols=("exact",))[0]
    record = verification_record(result, pairs, flip=True, seconds=1.23456)
    assert list(record) == [
        *("dataset", "protocol", "flip", "accuracy", "accuracy_std"),
        *("auc", "eer", "tar_at_far", "data_sha256", "seconds"),
    ]
    assert record["dataset"] == "memory"
    assert record["protocol"] == "exact"
    assert record["data_sha256"] == pairs.data_sha256
    assert record["accuracy"] == result.accuracy
    assert record["seconds"] == 1.235
    lonely = verification_record(result, replace(pairs, is_same=np.arange(40) < 20), flip=True, seconds=1)
    assert lonely["folds_of_one_kind"] == 10


def test_an_embedder_of_the_wrong_shape_is_refused():
    with pytest.raises(EmbedderError, match=r"must turn \(4, H, W, C\) into \(4, D\); it returned \(4, 3, 112, 112\)"):
        embed_pairs(to_model_input, memory_pairs(2))
    with pytest.raises(EmbedderError, match="batch_size must be at least 1; got 0"):
        embed_pairs(pattern_embedder, memory_pairs(2), batch_size=0)


def test_unwrap_looks_through_compile():
    model = PatternNet()
    assert unwrap(torch.compile(model)) is model
    assert unwrap(model) is model


# ----- on ranks: these run in the pool's processes -----


class CountingImages:
    """Images that remember which of them were asked for."""

    def __init__(self, images, broken=None):
        self.images, self.asked, self.broken = images, [], broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked.append(index)
        if index == self.broken:
            raise PairError(f"image {index} is broken")
        return self.images[index]


def embed_on_rank(num_pairs, wrap):
    pairs = memory_pairs(num_pairs, num_folds=1)
    counting = CountingImages(pairs.images)
    pairs = PairSet("counted", counting, pairs.is_same, 1, "")
    if wrap:  # DDP's forward would wait for the other ranks' batches, whose numbers differ
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(nn.Sequential(PatternNet(), nn.Linear(48, 8)))
        return verify(model, pairs, batch_size=1), counting.asked
    return embed_pairs(pattern_embedder, pairs, batch_size=3), counting.asked


@pytest.mark.parametrize("kind", ["bin", "list"])
def test_an_image_in_several_pairs_is_embedded_once(tmp_path, kind):
    write_lfw_images(tmp_path / "images", {"Ann": 2, "Bob": 2})
    names = ["Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Ann/Ann_0001.jpg", "Bob/Bob_0001.jpg"]
    if kind == "bin":
        write_bin(tmp_path / "twice.bin", [(tmp_path / "images" / name).read_bytes() for name in names], [True, False])
        pairs = load_pairs("twice.bin", tmp_path)
    else:
        (tmp_path / "twice.txt").write_text("\n".join(names) + "\n")
        pairs = load_pairs("images:twice.txt", tmp_path)
    counting = CountingImages(pairs.images)
    embeddings = embed_pairs(pattern_embedder, replace(pairs, images=counting))
    assert counting.asked == [0, 1, 3]
    np.testing.assert_array_equal(embeddings, embed_pairs(pattern_embedder, replace(pairs, first_index=np.arange(4))))


@pytest.mark.parametrize(("world_size", "num_pairs"), [(1, 4), (2, 5), (3, 7), (3, 1)])
def test_ranks_share_the_images_and_all_get_everything(ranks, world_size, num_pairs):
    alone = embed_pairs(pattern_embedder, memory_pairs(num_pairs))
    results = ranks.run(world_size, embed_on_rank, num_pairs, False)
    asked = [index for _, indices in results for index in indices]
    assert asked == list(range(2 * num_pairs))
    for embeddings, indices in results:
        np.testing.assert_allclose(embeddings, alone, atol=1e-5)
        np.testing.assert_array_equal(embeddings, results[0][0])
        assert abs(len(indices) - 2 * num_pairs / world_size) < 1


def test_a_ddp_model_with_uneven_slices(ranks):
    results = ranks.run(3, embed_on_rank, 5, True)
    assert results[0][0] == results[1][0] == results[2][0]


def fail_on_one_rank():
    pairs = memory_pairs(6, num_folds=1)
    pairs = PairSet("broken", CountingImages(pairs.images, broken=11), pairs.is_same, 1, "")
    try:
        embed_pairs(pattern_embedder, pairs)
    except (PairError, EmbeddingError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def test_an_error_on_one_rank_reaches_all(ranks):
    messages = ranks.run(3, fail_on_one_rank)
    assert messages[2] == "PairError: image 11 is broken"
    assert messages[0] == messages[1]
    assert messages[0].startswith("EmbeddingError: stopped because of an error on rank [2]")
