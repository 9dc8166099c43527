"""python -m tools.align: what is written, what is missed and told, what a second run keeps, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.alignment.pictures import DETECTOR, lfw_faces, needs_detector, paste, similarity
from tools import align
from tools.alignment.landmarks import read_landmarks
from tools.alignment.outputs import OutputError, output_names
from tools.alignment.template import ARCFACE_TEMPLATE, apply_transform

ROOT = Path(__file__).resolve().parents[2]
MATRIX = similarity(2, 15, (200, 180))


def photographs(folder: Path, names: list[str]) -> Path:
    """Noise with known points, and landmarks.txt that names them; returns the latter."""
    lines = []
    for index, name in enumerate(names):
        crop = np.random.default_rng(index).integers(0, 256, (28, 28, 3), dtype=np.uint8)
        crop = cv2.resize(crop, (112, 112), interpolation=cv2.INTER_CUBIC)
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, paste(crop, MATRIX, 360, 400))[1].tobytes())
        points = apply_transform(MATRIX, ARCFACE_TEMPLATE).reshape(-1)
        lines.append(f"{name} {' '.join(f'{value:.3f}' for value in points)}\n")
    (folder / "landmarks.txt").write_text("".join(lines))
    return folder / "landmarks.txt"


def run(*arguments: object) -> int:
    return align.main([str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


NAMES = ["loose.png", "Ann/ä 1.png", "Ann/2.png", "Ann/2.jpg"]
FACES = ["Ann/2.jpg.png", "Ann/2.png.png", "Ann/ä 1.png", "loose.png"]


def test_a_tree_is_aligned_kept_and_reported(tmp_path, capsys):
    marks = photographs(tmp_path, NAMES)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"x")
    (tmp_path / "in" / "unnamed.png").write_bytes((tmp_path / "in" / "loose.png").read_bytes())
    marks.write_text(marks.read_text() + "bad.jpg " + "1 2 " * 5 + "\n")
    given = (tmp_path / "in", tmp_path / "out", "--landmarks", marks, "--png", "--workers", 1)
    assert run(*given, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["images"], said["aligned"], said["kept"]) == (6, 4, 0)
    assert said["missed"] == {"no landmarks": 1, "unreadable": 1}
    assert sorted(miss["path"] for miss in said["misses"]) == ["bad.jpg", "unnamed.png"]
    assert json.loads((tmp_path / "out" / "align.json").read_text())["misses"] == said["misses"]
    written = contents(tmp_path / "out")
    assert sorted(written) == sorted([*FACES, "align.json", "landmarks.csv"])
    crop = cv2.resize(np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8), (112, 112),
                      interpolation=cv2.INTER_CUBIC)  # fmt: skip
    got = cv2.imdecode(np.frombuffer(written["Ann/ä 1.png"], np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(got.astype(int) - crop).mean() < 6  # there and back through a photograph of twice its size
    # a second run keeps the faces and looks at the misses again
    (tmp_path / "in" / "bad.jpg").write_bytes((tmp_path / "in" / "loose.png").read_bytes())
    os.utime(tmp_path / "out" / "Ann" / "2.jpg.png", (1, 1))  # older than its photograph
    before = (tmp_path / "out" / "loose.png").stat().st_ino
    assert run(*given) == 1
    words = capsys.readouterr().out
    assert "2 faces aligned" not in words  # bad.jpg's points are in one place
    assert "1 faces aligned, 3 kept, of 6 images" in words
    assert "bad.jpg: unusable landmarks" in words
    assert (tmp_path / "out" / "loose.png").stat().st_ino == before
    again = contents(tmp_path / "out")
    assert {name: again[name] for name in FACES} == {name: written[name] for name in FACES}
    assert again["landmarks.csv"] == written["landmarks.csv"]


def test_several_processes_write_the_same_and_landmarks_csv_can_be_used_again(tmp_path):
    marks = photographs(tmp_path, NAMES)
    for name, workers, points in (("a", 1, marks), ("b", 2, marks), ("c", 1, tmp_path / "a" / "landmarks.csv")):
        assert run(tmp_path / "in", tmp_path / name, "--landmarks", points, "--workers", workers, "--png") == 0
    first = contents(tmp_path / "a")
    for name in ("b", "c"):
        other = contents(tmp_path / name)
        assert all(other[key] == first[key] for key in [*FACES, "landmarks.csv"])


def test_refusals(tmp_path, capsys):
    marks = photographs(tmp_path, NAMES)
    source, out = tmp_path / "in", tmp_path / "out"

    def refused(*arguments: object) -> str:
        assert run(*arguments) == 2
        return capsys.readouterr().err

    assert "needs points: give --detector" in refused(source, out)
    assert "no such file for --landmarks" in refused(source, out, "--landmarks", tmp_path / "no.csv")
    assert "no such file or folder" in refused(tmp_path / "no", out, "--landmarks", marks)
    assert "lies in" in refused(source, source / "aligned", "--landmarks", marks)
    list_file = tmp_path / "list.txt"
    list_file.write_text("in/loose.png\n")
    text = marks.read_text()
    marks.write_text(f"in/{text}")
    assert "would replace" in refused(list_file, tmp_path, "--landmarks", marks, "--png")
    marks.write_text("other.jpg " + " ".join(text.split()[1:11]) + "\n")
    assert "names none of the 4 images: its first is 'other.jpg'" in refused(source, out, "--landmarks", marks)
    marks.write_text(text)
    assert not out.exists()
    assert run(source, out, "--landmarks", marks, "--workers", 1) == 0
    words = refused(source, out, "--landmarks", marks, "--min-size", 9, "--workers", 1)
    assert "aligned with other settings (min_size: 0, now 9)" in words
    assert run(source, out, "--landmarks", marks, "--min-size", 9, "--workers", 1, "--overwrite") == 0


def test_names_of_outputs():
    assert output_names(["a.jpg", "b/a.jpg", "a.png"], ".png") == ["a.jpg.png", "b/a.png", "a.png.png"]
    assert output_names(["/data/x/1.jpg", "../y/2.jpg"], ".jpg") == ["data/x/1.jpg", "y/2.jpg"]
    with pytest.raises(OutputError, match=r"x/1\.jpg and \.\./x/1\.jpg would both be written to"):
        output_names(["x/1.jpg", "../x/1.jpg"], ".jpg")


def test_a_killed_run_goes_on(tmp_path):
    """SIGKILL in the middle: what the journal names is kept, half a line of it is no hindrance."""
    marks = photographs(tmp_path, [f"{index:03d}.png" for index in range(60)])
    given = ["in", "out", "--landmarks", str(marks), "--workers", "1", "--png"]
    slow = "import sys, time; from tools import align; work = align._work\n"
    slow += "align._work = lambda task: (time.sleep(0.05), work(task))[1]\nsys.exit(align.main(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", slow, *given], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    journal = tmp_path / "out" / ".align.journal"
    while child.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n") - 1
    assert 4 <= done < 60
    assert not (tmp_path / "out" / "landmarks.csv").exists()
    for path in (tmp_path / "out").glob("*.png"):
        assert cv2.imread(str(path)).shape == (112, 112, 3)
    with journal.open("ab") as stream:
        stream.write(b'{"name": "0')
    given = [str(tmp_path / "in"), str(tmp_path / "out"), *given[2:]]
    assert align.main(given) == 0
    report = json.loads((tmp_path / "out" / "align.json").read_text())
    assert (report["kept"], report["aligned"]) == (done, 60 - done)
    assert len(read_landmarks(tmp_path / "out" / "landmarks.csv")) == 60
    assert not journal.exists()


@needs_detector
def test_with_a_detector(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for index, crop in enumerate(lfw_faces(3)):
        photograph = paste(crop, similarity(2, 10 * index, (250, 250)), 500, 500)
        cv2.imwrite(str(tmp_path / "in" / f"{index}.jpg"), photograph[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "in" / "none.jpg"), np.full((90, 90, 3), 90, np.uint8))
    assert run(tmp_path / "in", tmp_path / "out", "--detector", DETECTOR, "--workers", 1) == 1
    assert "none.jpg: no face" in capsys.readouterr().out
    landmarks = read_landmarks(tmp_path / "out" / "landmarks.csv")
    assert list(landmarks.names()) == ["0.jpg", "1.jpg", "2.jpg"]
    assert landmarks.get("1.jpg").score > 0.6
    # the same crops from the points alone
    assert run(tmp_path / "in", tmp_path / "b", "--landmarks", tmp_path / "out" / "landmarks.csv", "--workers", 1) == 1
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        pair = [cv2.imread(str(tmp_path / folder / name)).astype(int) for folder in ("out", "b")]
        assert np.abs(pair[0] - pair[1]).mean() < 1
