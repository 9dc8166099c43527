"""The drawn faces and the data set made of them: determinism, layout of the files, what may not be overwritten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.pairs import load_pairs
from eval.verification import evaluate_pairs
from tools import synthetic_faces
from tools.face_rendering import photo, render_face
from tools.face_rendering.people import identity_of, shot_of
from tools.face_rendering.population import FIRST_EVAL_IDENTITY, NUM_FOLDS, Population, SyntheticError, choose_pairs
from tools.face_rendering.sketch import Sketch, ellipse, smooth
from tools.face_rendering.studio import draw_people, draw_person
from tools.synthetic_faces import MANIFEST, contact_sheet, main, render_dataset
from utils.images import FACE, decode_image
from utils.recordio import RecordReader

SMALL = Population(identities=3, images_per_identity=4, eval_identities=20, pairs=40, seed=5)
WRITTEN = ("train.rec", "train.idx", "train.lst", "property", "synthetic.bin")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "set"
    assert render_dataset(out, SMALL)
    return out


def test_an_image_is_a_pure_function_of_seed_identity_and_image() -> None:
    first, quality = render_face(3, 1, 2)
    for seed, identity, image in ((3, 1, 3), (3, 2, 2), (4, 1, 2)):
        assert not np.array_equal(first, render_face(seed, identity, image)[0])
    photo._person.cache_clear()
    photo._texture_of.cache_clear()
    again, again_quality = render_face(3, 1, 2)
    assert np.array_equal(first, again)
    assert quality == again_quality
    assert first.shape == (112, 112, 3)
    assert first.dtype == np.uint8
    assert 45 <= quality <= 95


def test_no_face_is_blank_black_or_white() -> None:
    for identity in range(40):
        image = render_face(0, identity, 0)[0].astype(float)
        assert image.std() > 8, identity
        assert 8 < image.mean() < 247, identity


def test_a_person_keeps_its_face_while_the_circumstances_change() -> None:
    person = identity_of(0, 7)
    assert person == identity_of(0, 7)
    assert person != identity_of(0, 8)
    assert person != identity_of(1, 7)
    shots = [shot_of(0, 7, image, person) for image in range(60)]
    assert len({shot.yaw for shot in shots}) == 60
    assert {shot.occluder for shot in shots} > {None}
    assert max(abs(shot.yaw) for shot in shots) <= 0.45


def test_the_same_circumstances_show_what_differs_between_two_people() -> None:
    """What tells people apart must be in the pixels: not only in colours, which light and camera disturb."""
    person, other = identity_of(0, 1), identity_of(0, 2)
    shot = replace(shot_of(0, 1, 0, person), occluder=None, saturation=0.0, noise=0.0, blur=0.0)
    same_colours = replace(other, skin=person.skin, hair=person.hair, iris=person.iris, lip=person.lip)
    images = []
    for who in (person, same_colours):
        camera = photo._Camera(who, shot)
        canvas = np.full((224, 224, 3), 128, np.uint8)
        camera.paint(photo._scene(who, shot, np.random.default_rng(0)), canvas)
        images.append(canvas.astype(float))
    assert np.abs(images[0] - images[1]).mean() > 3


def test_a_turned_head_moves_what_stands_out_and_leaves_the_middle() -> None:
    person = identity_of(0, 0)
    shot = replace(shot_of(0, 0, 0, person), yaw=0.4, pitch=0.0, roll=0.0, shift=(0.0, 0.0), scale=40.0)
    camera = photo._Camera(person, shot)
    nose = np.array([[0.0, 0.0]])
    on_surface, in_plane = camera.project(nose, 1.0, 0.2), camera.project(nose, 0.0, 0.0)
    assert in_plane[0, 0] == pytest.approx(56.0)
    assert on_surface[0, 0] - in_plane[0, 0] > 5


def test_curves_pass_through_their_points_and_shapes_lie_where_they_should() -> None:
    points = [(0.0, 0.0), (1.0, 0.5), (2.0, -1.0), (0.5, -2.0)]
    assert np.allclose(smooth(points, 4)[::4], points)
    opened = smooth(points, 4, closed=False)
    assert opened.shape == (13, 2)
    assert np.allclose(opened[::4], points)
    sketch = Sketch()
    sketch.add_pair(ellipse(0.5, 0.0, 0.1, 0.2), (1.0, 2.0, 3.0))
    assert sketch.points[0].mean(axis=0) == pytest.approx([0.5, 0.0], abs=1e-12)
    assert sketch.points[1].mean(axis=0) == pytest.approx([-0.5, 0.0], abs=1e-12)


def test_workers_hand_out_the_same_bytes_in_the_order_of_the_jobs() -> None:
    jobs = [(1, identity, 2) for identity in range(20)]
    finished: list[int] = []
    assert list(draw_people(jobs, 2, finished.append)) == [draw_person(job) for job in jobs]
    assert finished == [2] * 20


def test_the_records_read_as_an_insightface_set(data_set: Path) -> None:
    with RecordReader(data_set / "train.rec", data_set / "train.idx") as reader:
        assert reader.layout == "insightface"
        assert reader.num_classes == 3
        labels = [reader.label(int(key)) for key in reader.image_keys]
        assert labels == [0] * 4 + [1] * 4 + [2] * 4
        header, payload = reader.sample(int(reader.image_keys[5]))
        assert header.label == 1
        assert decode_image(payload, FACE).shape == (112, 112, 3)
        assert bytes(payload) == draw_person((5, 1, 2))[1]
    assert (data_set / "property").read_text() == "3,112,112"
    assert (data_set / "train.lst").read_text().splitlines()[5] == "6\t1\tperson_00001/0001.jpg"


def test_the_verification_set_is_balanced_and_of_other_people(data_set: Path) -> None:
    pairs = load_pairs("synthetic", data_set)
    assert pairs.num_folds == NUM_FOLDS
    assert len(pairs.images) == 80
    assert pairs.images[3].shape == (112, 112, 3)
    assert (pairs.is_same.reshape(NUM_FOLDS, -1).mean(axis=1) == 0.5).all()
    first, _, _ = choose_pairs(SMALL)
    person, image = first[0]
    shown = decode_image(draw_person((5, FIRST_EVAL_IDENTITY + int(person), int(image) + 1))[int(image)])
    assert np.array_equal(pairs.images[0], shown)


def test_pixels_alone_do_not_tell_people_apart(tmp_path: Path) -> None:
    """Else training on the set would prove nothing: light, pose and background must outweigh a likeness of pixels."""
    population = Population(identities=1, images_per_identity=1, eval_identities=60, pairs=400)
    render_dataset(tmp_path, population)
    pairs = load_pairs("synthetic", tmp_path)
    small = [cv2.resize(pairs.images[i], (16, 16), interpolation=cv2.INTER_AREA) for i in range(len(pairs.images))]
    pixels = np.stack(small).reshape(len(small), -1).astype(np.float64)
    centred = pixels - pixels.mean(axis=1, keepdims=True)
    accuracy = evaluate_pairs(centred, pairs.is_same, protocol="exact").accuracy
    assert 0.5 < accuracy < 0.75


@pytest.mark.parametrize("population", [SMALL, Population(), Population(eval_identities=29, pairs=20)])
def test_pairs_never_repeat_and_no_person_is_in_two_folds(population: Population) -> None:
    first, second, is_same = choose_pairs(population)
    assert np.array_equal(first[:, 0] == second[:, 0], is_same)
    assert (first != second).any(axis=1).all()
    assert max(first[:, 1].max(), second[:, 1].max()) < population.eval_images
    unordered = {frozenset([tuple(one), tuple(two)]) for one, two in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(unordered) == population.pairs
    folds = np.arange(population.pairs) // (population.pairs // NUM_FOLDS)
    people = [set(first[folds == fold, 0]) | set(second[folds == fold, 0]) for fold in range(NUM_FOLDS)]
    assert sum(len(group) for group in people) == len(set().union(*people))


def test_the_verification_set_does_not_depend_on_the_training_set(data_set: Path, tmp_path: Path) -> None:
    assert render_dataset(tmp_path, replace(SMALL, identities=1, images_per_identity=1), workers=1)
    assert (tmp_path / "synthetic.bin").read_bytes() == (data_set / "synthetic.bin").read_bytes()
    assert (tmp_path / "train.rec").read_bytes() != (data_set / "train.rec").read_bytes()


def test_whole_output_is_left_alone_and_broken_output_made_again(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (data_set / name).read_bytes() for name in WRITTEN}
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_faces, "draw_people", lambda *_: pytest.fail("drew although everything was there"))
        assert not render_dataset(data_set, SMALL)
    (data_set / "synthetic.bin").write_bytes(b"cut off")
    assert render_dataset(data_set, SMALL)
    assert {name: (data_set / name).read_bytes() for name in WRITTEN} == before


def test_an_interrupted_run_is_taken_up_and_a_changed_renderer_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    small = replace(SMALL, identities=1, images_per_identity=1, pairs=20)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_faces, "write_bin", stop)
        with pytest.raises(KeyboardInterrupt):
            render_dataset(tmp_path, small)
    assert (tmp_path / "train.rec").exists()
    assert "files" not in json.loads((tmp_path / MANIFEST).read_text())
    assert render_dataset(tmp_path, small)
    assert not render_dataset(tmp_path, small)
    monkeypatch.setattr(synthetic_faces, "_renderer_version", lambda: "another")
    assert render_dataset(tmp_path, small)


def test_somebody_elses_records_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.rec").write_bytes(b"precious")
    assert main([str(tmp_path)]) == 2
    assert "holds a train.rec that is not this tool's (synthetic.json is missing)" in capsys.readouterr().err
    assert (tmp_path / "train.rec").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.rec"]


def test_all_wrong_arguments_are_named_at_once() -> None:
    with pytest.raises(SyntheticError) as caught:
        Population(identities=0, images_per_identity=0, eval_identities=19, pairs=30, seed=-1)
    text = str(caught.value)
    for part in (
        "identities = 0: 1 to 1000000 are possible",
        "images_per_identity = 0",
        "eval_identities = 19: 10 folds of different people need 20",
        "pairs = 30: 10 balanced folds need a multiple of 20",
        "seed = -1",
    ):
        assert part in text
    with pytest.raises(SyntheticError, match=r"pairs = 4000: 20 eval identities give 2640 at most"):
        Population(eval_identities=20, pairs=4000)


def test_the_contact_sheet_has_a_row_per_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = contact_sheet(0, identities=2, images=3)
    assert sheet.shape == (224, 336, 3)
    assert np.array_equal(sheet[112:, 224:], render_face(0, 1, 2)[0])
    assert main(["--contact-sheet", str(tmp_path / "sheet.png"), "--seed", "0"]) == 0
    written = cv2.imread(str(tmp_path / "sheet.png"))
    assert written.shape == (896, 1120, 3)
    assert np.array_equal(written[:224, :336, ::-1], sheet)
    assert main(["--contact-sheet", str(tmp_path / "sheet.gif")]) == 2
    assert "a contact sheet is a .png or a .jpg" in capsys.readouterr().err


def test_the_command_line_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [str(tmp_path / "set"), "--identities", "1", "--images-per-identity", "2", "--eval-identities", "20"]
    line += ["--pairs", "20", "--workers", "1"]
    for outcome in ("written", "already there"):
        assert main(line) == 0
        expected = f"1 identities of 2 images, 20 verification pairs of 20 others ({outcome})"
        assert expected in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([])
    assert "name a folder OUT" in capsys.readouterr().err
