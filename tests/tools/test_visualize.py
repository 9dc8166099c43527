"""Pictures of runs: which files a run gives, what is said of the others, and the numbers behind the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.classification_files import FOLDER, SNAPSHOTS, Embedded, write_embedded
from tools.run_pictures.similarities import _cosines
from tools.run_pictures.view import chosen_classes, read_view, unit
from tools.visualize import main


def make_run(folder: Path, size: int, *, classes: int = 4, centers: int = 0) -> Path:
    """What a run of `classes` classes with embeddings of `size` numbers leaves."""
    generator = np.random.default_rng(size)
    labels = np.arange(40) % classes
    prototypes = generator.normal(size=(classes, centers, size) if centers else (classes, size))
    rows = prototypes[:, 0] if centers else prototypes
    embeddings = 3 * rows[labels] + 0.3 * generator.normal(size=(40, size))
    folder.mkdir(parents=True)
    kept = Embedded(
        embeddings.astype("<f4"), labels, prototypes.astype("<f4"), np.full(classes, 10), step=20, epoch=2.0
    )
    write_embedded(folder / FOLDER / "test.npz", kept)
    for step in (0, 10, 20) if size <= 3 else ():
        frame = Embedded(kept.embeddings * step, labels, kept.prototypes, kept.class_counts, step, step / 10)
        write_embedded(folder / FOLDER / SNAPSHOTS / f"step_{step:09d}.npz", frame)
    lines = [{"kind": "train", "step": step, "epoch": step // 10, "loss": 1 / step} for step in (5, 10, 15, 20)]
    lines += [
        {
            "kind": "classification",
            "dataset": "test",
            "step": step,
            "epoch": step // 10,
            "error": 0.5,
            "class_margin": 30.0,
        }
        for step in (0, 10, 20)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n{torn")
    (folder / "config.json").write_text(json.dumps({"head": "cosface", "head_options": {"margin": 0.2, "scale": 16.0}}))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_in_the_plane_gives_every_picture(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    assert main([str(run)]) == 0
    assert names(run / "pictures") == [
        "confusion.png", "curves.png", "embeddings.gif", "embeddings.png", "head.png", "histograms.png",
    ]  # fmt: skip
    with Image.open(run / "pictures" / "embeddings.gif") as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
    for path in (run / "pictures").glob("*.png"):
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").resize((60, 60)).getcolors(3600) or []) > 20, f"{path.name} is blank"


@pytest.mark.parametrize(("size", "centers"), [(3, 0), (7, 0), (7, 2)])
def test_what_a_run_cannot_give_is_told(
    size: int, centers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", size, centers=centers)
    assert main([str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["pictures"]) == 5
    assert len(facts["not_drawn"]) == 1
    assert "an animation needs embeddings of two numbers" in facts["not_drawn"][0]
    assert main([str(run), "--only", "animation"]) == 1


def test_several_runs_share_their_curves(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 2) for name in ("a/run", "b/run")]
    out = tmp_path / "out"
    assert main([*map(str, runs), "--only", "curves,head", "--out", str(out)]) == 0
    assert names(out) == ["a_run", "b_run", "curves.png"]
    assert names(out / "a_run") == ["head.png"]


def test_hundreds_of_classes_are_thinned_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 8, classes=300)
    assert main([str(run), "--only", "embeddings,confusion,histograms"]) == 0
    assert chosen_classes(300, 20).tolist()[::19] == [0, 299]
    assert chosen_classes(5, 20).tolist() == [0, 1, 2, 3, 4]


def test_epochs_of_the_curves_are_those_of_the_steps(tmp_path: Path) -> None:
    epochs, values = read_view(make_run(tmp_path / "run", 2)).curve("train", "loss")
    assert epochs.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert values.tolist() == [1 / 5, 1 / 10, 1 / 15, 1 / 20]


def test_cosines_of_the_histograms() -> None:
    embeddings, prototypes = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    own, margins = _cosines(embeddings, np.array([0, 1]), prototypes)
    assert own.tolist() == pytest.approx([1.0, 0.5**0.5])
    assert margins.tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    assert unit(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "--only", "embedings"], "there is no such picture; there are embeddings, confusion"),
        (["{run}", "{run}"], "a run is named twice"),
        (["{run}/classification"], "no folder of a run"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", 2)
    assert main([argument.format(run=run) for argument in arguments]) == 2
    assert words in capsys.readouterr().err
