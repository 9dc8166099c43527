"""A run's own constants reach whoever feeds its weights again, or are refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import build_backbone
from eval.embedder import EmbedderError, load_embedder
from eval.run_format import format_beside, require_face_pixels
from utils.image_format_file import write_image_format
from utils.images import FACE, ImageFormat

MEAN = np.random.default_rng(4).uniform(0, 255, (112, 112, 3)).astype("<f4")


@pytest.mark.parametrize(
    "image_format", [replace(FACE, mean=0.0, std=255.0), replace(FACE, std=60.0, mean_image=MEAN.tobytes())]
)
def test_weights_are_fed_as_their_run_was(image_format: ImageFormat, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_backbone("mbf", embedding_size=8).eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    write_image_format(tmp_path, image_format, "unit")
    images = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    mean = torch.from_numpy(MEAN.copy()) if image_format.mean_image else torch.zeros(())
    with torch.inference_mode():
        expected = model(((images.float() - mean) / image_format.std).permute(0, 3, 1, 2))
    torch.testing.assert_close(load_embedder(tmp_path)(images), expected, rtol=1e-3, atol=1e-4)


def test_only_runs_on_face_pixels_are_exported(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    require_face_pixels(weights)  # nothing beside: as arcface_torch's
    write_image_format(tmp_path, FACE, "source")
    require_face_pixels(weights)
    write_image_format(tmp_path, replace(FACE, mean=0.0, std=255.0), "unit")
    with pytest.raises(EmbedderError, match=r"as \(x - 0\) / 255 .*normalization=symmetric to export"):
        require_face_pixels(weights)
    write_image_format(tmp_path, replace(FACE, std=60.0, mean_image=MEAN.tobytes()), "mean_image")
    with pytest.raises(EmbedderError, match=r"as \(x - its mean image\) / 60 "):
        require_face_pixels(weights)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "image_format.json").write_text("{}")
    with pytest.raises(EmbedderError, match=r"image_format\.json: no image format that a run writes"):
        format_beside(tmp_path / "model.pt")
