"""Every kind of model file becomes the same embedder, and every file that cannot is explained."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from backbones import WeightsError, build_backbone
from eval.embedder import EmbedderError, find_weights, load_embedder, load_module
from tools.export.safetensors_file import export_safetensors

IMAGES = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder: config.json, model.pt (last) and best.pt with other weights; and what each embeds."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"network": "mbf", "embedding_size": 64}))
    wanted = {}
    for name, seed in (("model.pt", 0), ("best.pt", 1)):
        torch.manual_seed(seed)
        model = build_backbone("mbf", embedding_size=64).eval()
        torch.save(model.state_dict(), folder / name)
        with torch.inference_mode():
            wanted[name] = model((IMAGES.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    return folder, wanted


def test_a_run_folder_gives_the_best_or_the_last(run):
    folder, wanted = run
    torch.testing.assert_close(load_embedder(folder)(IMAGES), wanted["best.pt"])
    torch.testing.assert_close(load_embedder(folder, checkpoint="last")(IMAGES), wanted["model.pt"])
    torch.testing.assert_close(load_embedder(folder / "model.pt")(IMAGES), wanted["model.pt"])
    with pytest.raises(EmbedderError, match="unknown checkpoint 'first'; allowed: best, last"):
        load_embedder(folder, checkpoint="first")


def test_without_a_best_the_last_is_used(run, tmp_path):
    (tmp_path / "model.pt").write_bytes((run[0] / "model.pt").read_bytes())
    assert find_weights(tmp_path) == tmp_path / "model.pt"


@pytest.mark.parametrize("network", [None, "mbf"])
def test_weights_alone_tell_their_network(run, tmp_path, network):
    state = torch.load(run[0] / "model.pt", weights_only=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "backbone.pth")
    embedder = load_embedder(tmp_path / "backbone.pth", network=network)
    torch.testing.assert_close(embedder(IMAGES), run[1]["model.pt"])


def test_errors_name_what_is_there(run, tmp_path):
    with pytest.raises(EmbedderError, match="no such model; give a run folder"):
        load_embedder(tmp_path / "nothing.pt")
    (tmp_path / "training.log").touch()
    with pytest.raises(EmbedderError, match=r"best\.pt or model\.pt once training has saved; there is training\.log"):
        load_embedder(tmp_path)
    with pytest.raises(EmbedderError, match="not the weights of network 'r18'"):
        load_embedder(run[0] / "model.pt", network="r18")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"damaged\.pth"):
        load_embedder(tmp_path / "damaged.pth")


def test_nets_for_other_images_are_refused(tmp_path):
    torch.save(build_backbone("digits", in_channels=1).state_dict(), tmp_path / "digits.pt")
    for network in ("digits", None):
        with pytest.raises(EmbedderError, match="'digits' takes 28x28 images of 1 channels, faces are 112x112"):
            load_embedder(tmp_path / "digits.pt", network=network)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "head.pt")
    with pytest.raises(EmbedderError, match="holds no convolution"):
        load_embedder(tmp_path / "head.pt", network="r18")


def export(model, path, batch, metadata):
    import onnx

    dynamic = {"x": {0: "batch"}} if batch is None else None
    example = torch.zeros(batch or 1, 3, 112, 112)
    torch.onnx.export(
        model, (example,), str(path), input_names=["x"], output_names=["y"], dynamic_axes=dynamic, dynamo=False
    )
    loaded = onnx.load(str(path))
    for key, value in metadata.items():
        loaded.metadata_props.add(key=key, value=value)
    onnx.save(loaded, str(path))


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_with_any_batch_gives_the_same_embeddings(tmp_path, batch):
    model = nn.Sequential(nn.Conv2d(3, 4, 7, 7), nn.Flatten(), nn.Linear(4 * 16 * 16, 8)).eval()
    export(model, tmp_path / "model.onnx", batch, {})
    with torch.no_grad():
        wanted = model((IMAGES.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    torch.testing.assert_close(load_embedder(tmp_path / "model.onnx")(IMAGES), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_with_another_preprocessing_is_refused(tmp_path):
    model = nn.Sequential(nn.AvgPool2d(28), nn.Flatten())
    export(model, tmp_path / "ours.onnx", None, {"color_order": "RGB", "mean": "127.5", "std": "127.5"})
    assert load_embedder(tmp_path / "ours.onnx")(IMAGES).shape == (3, 48)
    export(model, tmp_path / "bgr.onnx", None, {"color_order": "BGR"})
    with pytest.raises(EmbedderError, match="color_order = BGR; images are given as color_order = RGB"):
        load_embedder(tmp_path / "bgr.onnx")
    export(model, tmp_path / "raw.onnx", None, {"mean": "0", "std": "1"})
    with pytest.raises(EmbedderError, match="mean = 0"):
        load_embedder(tmp_path / "raw.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(EmbedderError, match="onnxruntime cannot load it"):
        load_embedder(tmp_path / "damaged.onnx")


def test_a_net_with_options_comes_back_with_and_without_its_run(tmp_path):
    """config.json says them; without it the shapes tell those that the shapes follow."""
    options = {"width": 0.125, "stem": "imagenet", "image_size": 112}
    torch.manual_seed(0)
    model = build_backbone("resnet18", embedding_size=64, **options).eval()
    with torch.inference_mode():
        wanted = model((IMAGES.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    run = tmp_path / "run"
    for folder in (run, tmp_path):
        folder.mkdir(exist_ok=True)
        torch.save(model.state_dict(), folder / "model.pt")
    (run / "config.json").write_text(json.dumps({"network": "resnet18", "network_options": options}))
    export_safetensors(model, tmp_path / "model.safetensors")
    torch.testing.assert_close(load_embedder(run)(IMAGES), wanted)
    torch.testing.assert_close(load_embedder(tmp_path / "model.safetensors")(IMAGES), wanted)
    for network in (None, "resnet18"):
        alone = load_module(tmp_path / "model.pt", network=network)
        with pytest.raises(ValueError, match=r"got an input of shape \(3, 3, 112, 112\), needs \(B, 3, 32, 32\)"):
            alone(torch.zeros(3, 3, 112, 112))
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in alone.state_dict().items())
    (run / "config.json").write_text(json.dumps({"network": "resnet18", "network_options": {"width": 0.5}}))
    with pytest.raises(EmbedderError, match="these are not the weights of network 'resnet18'"):
        load_embedder(run)
