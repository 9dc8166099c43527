"""python -m tools.embed: what is embedded, kept when killed, shared by ranks, skipped, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from eval.embedding import embed_images
from eval.embedding_set import load_embedding_set
from eval.image_set import open_image_set
from tests.eval.faces import face, pattern_embedder
from tests.tools.alignment.pictures import paste, similarity
from tools import embed
from tools.alignment.template import ARCFACE_TEMPLATE, apply_transform
from tools.embedding_parts import Part, PartFolder, PartsError, parts_folder
from tools.embedding_run import begin_parts, embed_parts
from tools.face_reading import FaceReader, ReadAhead
from utils.distributed import Ranks
from utils.images import encode_jpeg

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A folder of faces and a model that is no file's: load_embedder gives the pattern embedder."""
    for identity, name in enumerate(["Ann", "Bob", "Cid ä"]):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for shot in range(5):
            (tmp_path / "faces" / name / f"{shot}.jpg").write_bytes(encode_jpeg(face(identity, shot)))
    (tmp_path / "faces" / "loose.jpg").write_bytes(encode_jpeg(face(9)))
    (tmp_path / "model.pt").write_bytes(b"weights")
    monkeypatch.setattr(embed, "load_embedder", lambda *_, **__: pattern_embedder)
    return tmp_path


def run(folder: Path, *arguments: object, output: str = "out.npz") -> int:
    given = ["--model", folder / "model.pt", folder / "faces", "-o", folder / output, "--device", "cpu", *arguments]
    return embed.main([str(argument) for argument in given])


def test_a_folder_becomes_a_set(people, capsys):
    assert run(people, "--part", 4, "--batch-size", 3, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    got = load_embedding_set(people / "out.npz")
    images = open_image_set(people / "faces")
    wanted = embed_images(pattern_embedder, images.images)
    np.testing.assert_allclose(got.embeddings, wanted, rtol=1e-6, atol=1e-4)
    assert got.names.tolist() == list(images.names)
    assert [str(got.identities[label]) if label >= 0 else None for label in got.labels] == [None] + [
        name for name in ("Ann", "Bob", "Cid ä") for _ in range(5)
    ]
    assert np.isnan(got.detector_scores).all()
    assert got.about["data_sha256"] == images.sha256() == said["data_sha256"]
    assert got.about["flip"] is True
    assert got.about["weights_sha256"] == said["weights_sha256"]
    assert said["embeddings"] == 16
    assert [entry.name for entry in people.glob(".*")] == []
    assert run(people, "--no-flip", output="plain.npz") == 0
    plain = load_embedding_set(people / "plain.npz").embeddings
    np.testing.assert_allclose(plain, embed_images(pattern_embedder, images.images, flip=False), rtol=1e-6, atol=1e-4)


def test_parquet_holds_the_same(people):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (requirements-optional.txt)")
    assert run(people) == 0
    assert run(people, output="out.parquet") == 0
    first, second = load_embedding_set(people / "out.npz"), load_embedding_set(people / "out.parquet")
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    assert first.names.tolist() == second.names.tolist()


def test_what_cannot_be_read_stops_or_is_skipped(people, capsys):
    (people / "faces" / "Bob" / "2.jpg").write_bytes(b"x")
    (people / "faces" / "Ann" / "9.jpg").write_bytes(encode_jpeg(face(0)[:50]))
    assert run(people, "--part", 4) == 2
    said = capsys.readouterr().err
    assert "Ann/9.jpg" in said
    assert "the same command goes on" in said
    assert not (people / "out.npz").exists()
    assert run(people, "--part", 4, "--no-flip") == 2
    assert "holds parts of another run (flip: True, now False)" in capsys.readouterr().err
    assert run(people, "--part", 4, "--skip-bad") == 1  # what was made before the first bad image still serves
    assert "2 images skipped" in capsys.readouterr().out
    got = load_embedding_set(people / "out.npz")
    assert len(got) == 15
    assert "Bob/2.jpg" not in got.names.tolist()
    assert [name for name, _ in got.about["skipped"]] == ["Ann/9.jpg", "Bob/2.jpg"]
    for path in (people / "faces").rglob("*.jpg"):
        path.write_bytes(b"x")
    assert run(people, "--skip-bad", "--overwrite") == 2
    assert "none of the 17 images could be embedded" in capsys.readouterr().err


def test_images_that_change_between_runs_are_embedded_anew(people, monkeypatch):
    def stopped(*_: object) -> None:
        raise PartsError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(PartFolder, "assemble", stopped)
        assert run(people, "--part", 4) == 2
    before = {path.name: path.stat().st_ino for path in parts_folder(people / "out.npz").glob("*.npz")}
    (people / "faces" / "Bob" / "1.jpg").write_bytes(encode_jpeg(face(7)))
    with monkeypatch.context() as patch:
        patch.setattr(PartFolder, "assemble", stopped)
        assert run(people, "--part", 4) == 2
    after = {path.name: path.stat().st_ino for path in parts_folder(people / "out.npz").glob("*.npz")}
    assert len(set(after.items()) - set(before.items())) == 1
    assert run(people, "--part", 4) == 0
    got = load_embedding_set(people / "out.npz")
    wanted = embed_images(pattern_embedder, open_image_set(people / "faces").images)
    np.testing.assert_allclose(got.embeddings, wanted, rtol=1e-6, atol=1e-4)


def test_embeddings_that_are_not_finite_are_refused(people, capsys, monkeypatch):
    bad = lambda images: pattern_embedder(images) * torch.where(torch.arange(len(images)) == 1, torch.nan, 1.0)[:, None]  # noqa: E731
    monkeypatch.setattr(embed, "load_embedder", lambda *_, **__: bad)
    assert run(people) == 2
    assert "1 embeddings hold NaN or infinity, the first of image 1" in capsys.readouterr().err


def test_photographs_are_aligned_on_the_way(people, capsys):
    matrix = similarity(2, 20, (200, 180))
    lines = []
    for path in sorted((people / "faces").rglob("*.jpg")):
        crop = cv2.imread(str(path))
        path.write_bytes(
            cv2.imencode(".jpg", paste(crop, matrix, 360, 400), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
        )
        points = " ".join(f"{value:.3f}" for value in apply_transform(matrix, ARCFACE_TEMPLATE).reshape(-1))
        lines.append(f"{path.relative_to(people / 'faces')} {points}\n")
    marks = people / "landmarks.txt"
    marks.write_text("".join(lines))
    assert run(people, output="refused.npz") == 2
    assert run(people, "--align") == 2
    assert "needs points" in capsys.readouterr().err
    assert run(people, "--landmarks", marks) == 2
    assert "are for --align" in capsys.readouterr().err
    (people / "no.onnx").write_bytes(b"x")
    assert run(people, "--align", "--detector", people / "no.onnx", "--skip-bad") == 2
    assert run(people, "--align", "--landmarks", marks) == 0
    got = load_embedding_set(people / "out.npz")
    wanted = pattern_embedder(torch.from_numpy(np.stack([face(0, shot) for shot in range(5)])))
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(got.embeddings[1:6]), 2 * wanted)
    assert got.about["align"]["face"] == "largest"
    mirrored = pattern_embedder(torch.from_numpy(np.stack([face(0, shot)[:, ::-1] for shot in range(5)]).copy()))
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(got.embeddings[1:6]), wanted + mirrored)
    assert cosines.min() > 0.98


def test_refusals(people, capsys):
    (people / "out.npz").write_bytes(b"mine")
    assert run(people) == 2
    assert "is already there" in capsys.readouterr().err
    assert (people / "out.npz").read_bytes() == b"mine"
    (people / "folder.npz").mkdir()
    assert run(people, "--overwrite", output="folder.npz") == 2
    assert "folder.npz is a folder; name a file in it" in capsys.readouterr().err
    assert not parts_folder(people / "folder.npz").exists()
    assert run(people, output="out.csv") == 2
    assert "kept in .npz or .parquet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(people, "--batch-size", 0)


SLOW = """
import sys, time
from tests.eval.faces import pattern_embedder
from tools import embed
def slow(images):
    time.sleep(float(sys.argv[1]))
    return pattern_embedder(images)
embed.load_embedder = lambda *_, **__: slow
sys.exit(embed.main(sys.argv[2:]))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(people, monkeypatch):
    given = ["--model", "model.pt", "faces", "-o", "out.npz", "--device", "cpu", "--part", "2", "--batch-size", "2"]
    monkeypatch.chdir(people)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", SLOW, "0.1", *given], env=environment)
    parts = parts_folder(Path("out.npz"))
    while child.poll() is None and len(list(parts.glob("*.npz"))) < 2:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    kept = {path.name: path.stat().st_ino for path in parts.glob("*.npz")}
    assert 2 <= len(kept) < 8
    assert not Path("out.npz").exists()
    saved: list[int] = []
    save = PartFolder.save
    with monkeypatch.context() as patch:
        patch.setattr(PartFolder, "save", lambda self, start, part: (saved.append(start), save(self, start, part))[1])
        assert embed.main(given) == 0
    assert len(saved) == 8 - len(kept)
    resumed = Path("out.npz").read_bytes()
    assert not parts.exists()
    Path("out.npz").unlink()
    assert embed.main(given) == 0
    assert Path("out.npz").read_bytes() == resumed


def rank_work(folder: str, bad_rank: int) -> tuple[list[int], str]:
    """What a rank does: parts of three images; one rank's reader may fail."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks = Ranks(rank, world_size, rank, world_size, torch.device("cpu"))
    images = open_image_set(Path(folder) / "faces")
    reader = FaceReader(images)
    if rank == bad_rank:
        damaged = Path(folder) / "damaged"  # a set of its own: the other rank must not meet what this one fails on
        shutil.copytree(Path(folder) / "faces", damaged)
        for path in damaged.rglob("*.jpg"):
            path.write_bytes(b"x")
        reader = FaceReader(open_image_set(damaged))
    parts = PartFolder(Path(folder) / "out.npz", {}, len(images.names), 3)
    missing = begin_parts(parts, parts.output, ranks, restart=False)
    try:
        embed_parts(pattern_embedder, reader, parts, missing, ranks, batch_size=2, readers=1)
    except Exception as error:
        return [part.start for part in missing], f"{type(error).__name__}: {error}"
    if ranks.is_main:
        parts.assemble(images, {})
    return [part.start for part in missing], ""


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_parts(people, ranks, world_size):
    results = ranks.run(world_size, rank_work, str(people), -1)
    assert results == [([0, 3, 6, 9, 12, 15], "")] * world_size
    got = load_embedding_set(people / "out.npz")
    assert run(people, "--part", 3, "--batch-size", 2, output="alone.npz") == 0
    np.testing.assert_array_equal(got.embeddings, load_embedding_set(people / "alone.npz").embeddings)


def test_a_rank_that_fails_stops_the_others(people, ranks):
    results = ranks.run(2, rank_work, str(people), 1)
    assert results[1][1].startswith("ImageError")
    assert "another rank has stopped" in results[0][1] or "error on rank [1]" in results[0][1]
    assert not (people / "out.npz").exists()


def test_parts_know_damage_and_other_processes(tmp_path):
    parts = PartFolder(tmp_path / "a.npz", {"part": 1}, 2, 1)
    parts.open(restart=False)
    part = Part(np.ones((1, 2), np.float32), np.array([0]), np.array([np.nan], np.float32), [(1, "why")])
    parts.save(0, part)
    assert [list(rest) for rest in parts.missing()] == [[1]]
    assert list(parts.load(0).skipped) == [(1, "why")]
    path = next(parts.folder.glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(PartsError, match=r"damaged .*remove it, and the same command makes it anew"):
        parts.load(0)
    code = "import sys; from pathlib import Path; from tools.embedding_parts import PartFolder, PartsError\n"
    code += "try: PartFolder(Path(sys.argv[1]), {'part': 1}, 2, 1).open(restart=True)\nexcept PartsError as e: print(e)"
    command = [sys.executable, "-c", code, str(tmp_path / "a.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "is being made by another process" in done.stdout


def test_reading_ahead_keeps_order_and_errors_and_is_bounded():
    asked = []

    def work(item: int) -> int:
        if item == 30:
            raise ValueError("thirty")
        return item * item

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    for threads in (0, 3):
        asked.clear()
        ahead = ReadAhead(work, items(), threads, ahead=5)
        assert [next(ahead) for _ in range(10)] == [item * item for item in range(10)]
        assert len(asked) <= 15
        with pytest.raises(ValueError, match="thirty"):
            list(ahead)
