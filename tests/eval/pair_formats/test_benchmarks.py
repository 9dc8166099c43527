"""Benchmarks by name, in the layouts and formats they come in: pairs, folds, identities, images, refusals."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import scipy.io

from eval.pair_formats.reading import read_pair_list
from eval.pairs import PairError, list_targets, load_pair_sets, load_pairs
from tests.data import SHARED, needs_lfw
from tests.eval.faces import face, write_lfw_images
from tests.eval.pair_folders import write_agedb, write_cfp, write_flagged, write_image, write_rfw_bins, write_rfw_lists
from utils.images import decode_image, encode_jpeg

GROUPS = ("African", "Asian", "Caucasian", "Indian")


@pytest.mark.parametrize(
    ("name", "flags", "pattern"),
    [("calfw", [1 + i // 2 for i in range(20)], "P{}_x_000{}.jpg"), ("cplfw", [1] * 20, "P{}_x_{}.jpg")],
)
def test_calfw_and_cplfw_have_same_and_different_pairs_in_every_fold(tmp_path, name, flags, pattern):
    write_flagged(tmp_path / name, f"pairs_{name.upper()}.txt", "aligned images", flags, 20, pattern)
    pairs = load_pairs(name, tmp_path)
    assert (pairs.name, pairs.num_folds, len(pairs.images)) == (name, 10, 80)
    assert pairs.is_same.tolist() == [True] * 20 + [False] * 20
    assert pairs.folds.tolist() == [i // 2 for i in range(20)] * 2
    assert (pairs.identities[0::2] == pairs.identities[1::2]).tolist() == pairs.is_same.tolist()
    assert pairs.names[3] == pattern.format(1, 2)
    file = tmp_path / name / "aligned images" / pattern.format(1, 2)
    np.testing.assert_array_equal(pairs.images[3], decode_image(file.read_bytes()))
    assert list_targets(tmp_path) == [name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("P0_x_0002.jpg 1", "P0_x_0002.jpg 2"), r"line 2: the flag 2 differs from 1 on the pair's other line"),
        (("P0_x_0002.jpg 1", "P1_x_0002.jpg 1"), r"line 1: the list says the same identity, .* 'P0_x_0001.jpg', 'P1_"),
        (("P0_x_0001.jpg 0\nP1_x", "P0_x_0001.jpg 0\nP0_x"), "line 41: the list says different identities"),
        (
            ("P0_x_0001.jpg 1\nP0_x_0002.jpg 1", "P0_x_0001.jpg 3\nP0_x_0002.jpg 3"),
            "line 1: folds must count up from 1 .*got fold 3 of 10",
        ),
        (("P0_x_0001.jpg 1\n", ""), "line 79: 79 lines do not make pairs"),
        (("P0_x_0002.jpg 1", "P0_x_0002.jpg"), r"line 2: expected `Name_0001.jpg FLAG`"),
        (("P3_x_0002.jpg 2", "P3_x_0009.jpg 2"), r"line 8: the image .*P3_x_0009.jpg cannot be read"),
    ],
)
def test_a_list_that_contradicts_itself_or_the_images_is_refused(tmp_path, change, message):
    write_flagged(
        tmp_path / "calfw", "pairs_CALFW.txt", "images", [1 + i // 2 for i in range(20)], 20, "P{}_x_000{}.jpg"
    )
    path = tmp_path / "calfw" / "pairs_CALFW.txt"
    before = path.read_text()
    assert change[0] in before
    path.write_text(before.replace(*change, 1))
    with pytest.raises(PairError, match=message):
        load_pairs("calfw", tmp_path)


@pytest.mark.parametrize(("name", "second"), [("cfp_ff", "frontal/02.jpg"), ("cfp_fp", "profile/02.jpg")])
def test_cfp_from_its_protocol_folder(tmp_path, name, second):
    write_cfp(tmp_path / "cfp")
    pairs = load_pairs(name, tmp_path)
    assert pairs.num_folds == 10
    assert pairs.is_same.tolist() == [True, True, False] * 10
    assert pairs.folds.tolist() == [fold for fold in range(10) for _ in range(3)]
    assert list(pairs.names[:2]) == ["Data/Images/001/frontal/01.jpg", f"Data/Images/001/{second}"]
    assert (pairs.identities[0::2] == pairs.identities[1::2]).tolist() == pairs.is_same.tolist()
    protocol = tmp_path / "cfp" / "Protocol"
    digest = hashlib.sha256((protocol / "Pair_list_F.txt").read_bytes())
    if name == "cfp_fp":
        digest.update((protocol / "Pair_list_P.txt").read_bytes())
    for fold in range(1, 11):
        for file in ("same.txt", "diff.txt"):
            digest.update((protocol / "Split" / name[-2:].upper() / f"{fold:02d}" / file).read_bytes())
    for image in pairs.names:
        digest.update((tmp_path / "cfp" / image).read_bytes())
    assert pairs.data_sha256 == digest.hexdigest()
    assert list_targets(tmp_path) == ["cfp_ff", "cfp_fp"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Split/FP/03/diff.txt", "13,9\n", r"03/diff.txt: line 1: the list says different identities"),
        ("Split/FP/03/same.txt", "13,99\n", r"03/same.txt: line 1: Pair_list_P.txt names no image 99"),
        ("Split/FP/03/same.txt", "13\n", r"03/same.txt: line 1: expected `i,j`"),
        ("Pair_list_P.txt", "1 x.jpg\n", r"Pair_list_P.txt: line 1: expected `1 \.\./Data"),
        ("Pair_list_P.txt", "1 ../../../../etc/x/y.jpg\n", "names no image 2|leads out of the folder"),
    ],
)
def test_cfp_lists_that_disagree_are_named_with_their_line(tmp_path, file, text, message):
    write_cfp(tmp_path / "cfp_fp")
    (tmp_path / "cfp_fp" / "Protocol" / file).write_text(text)
    with pytest.raises(PairError, match=message):
        load_pairs("cfp_fp", tmp_path)


@pytest.mark.parametrize("as_cells", [True, False])
def test_agedb_from_its_authors_protocols(tmp_path, as_cells):
    write_agedb(tmp_path / "agedb", 30, as_cells=as_cells)
    write_agedb(tmp_path / "agedb", 5, splits=3, as_cells=as_cells)
    assert list_targets(tmp_path) == ["agedb_30", "agedb_5"]
    assert load_pairs("agedb_5", tmp_path).num_folds == 3
    pairs = load_pairs("agedb_30", tmp_path)
    assert (pairs.num_folds, len(pairs.images)) == (10, 80)
    assert pairs.is_same.tolist() == [True, True, False, False] * 10
    assert pairs.folds.tolist() == [fold for fold in range(10) for _ in range(4)]
    assert (pairs.identities[0::2] == pairs.identities[1::2]).tolist() == pairs.is_same.tolist()
    assert list(pairs.names[8:12]) == [f"{name}.jpg" for name in (
        "3_NameOf3_1_A_20", "3_NameOf3_2_A_50", "4_NameOf4_1_A_20", "4_NameOf4_2_A_50")]  # fmt: skip
    images = tmp_path / "agedb" / "03_Protocol_Images"
    np.testing.assert_array_equal(pairs.images[13], decode_image((images / f"{pairs.names[13][:-4]}.jpg").read_bytes()))
    digest = hashlib.sha256((tmp_path / "agedb" / "04_FINAL_protocol_30_years.mat").read_bytes())
    for name in pairs.names:
        digest.update((images / name).read_bytes())
    assert pairs.data_sha256 == digest.hexdigest()
    (tmp_path / "agedb").rename(
        tmp_path / "agedb_30"
    )  # a folder of its own; the other protocol is not looked for there
    assert load_pairs("agedb_30", tmp_path).data_sha256 == pairs.data_sha256
    assert list_targets(tmp_path) == ["agedb_30"]


def test_the_text_list_of_agedb_goes_before_the_protocol_beside_it(tmp_path):
    write_agedb(tmp_path / "agedb_30")
    for file in ("a/1.jpg", "a/2.jpg"):
        write_image(tmp_path / "agedb_30" / "agedb30_align_112" / file, 0, 0)
    (tmp_path / "agedb_30" / "agedb_30_pair.txt").write_text("a/1.jpg a/2.jpg 1\n")
    assert len(load_pairs("agedb_30", tmp_path).is_same) == 1
    (tmp_path / "agedb_30" / "pairs.txt").write_text("a/1.jpg a/2.jpg 1\n")
    with pytest.raises(PairError, match=r"say which: agedb_30/agedb30_align_112:agedb_30/pairs.txt or"):
        load_pairs("agedb_30", tmp_path)


def test_agedb_aligned_images_go_before_the_distributed_ones(tmp_path):
    write_agedb(tmp_path / "agedb")
    write_image(tmp_path / "agedb" / "images" / "0_NameOf0_1_A_20.jpg", 77, 0)
    with pytest.raises(PairError, match=r"split 1, pair 1: the image .*images/0_NameOf0_2_A_50.jpg cannot be read"):
        load_pairs("agedb_30", tmp_path)


def _agedb(**changes):
    image = {"name": "7_Ann_3_A_20", "age": 20.0} | changes.pop("image", {})
    cell = np.empty((2, 1), object)
    cell[0, 0], cell[1, 0] = image, {"name": "7_Ann_4_A_50", "age": 50.0}
    return {"pairs": cell, "annot": [[1]]} | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pairs": 1}, "splits is not in it.*; expected `splits`, structures with `pairs`"),
        ({"splits": _agedb(annot=[[0]])}, "split 1, pair 1: the list says different identities.*'7_Ann_3_A_20.jpg'"),
        ({"splits": _agedb(annot=[[1, 1]])}, "split 1: 2 images and 2 numbers in annot"),
        ({"splits": _agedb(annot="yes")}, "split 1: annot is no array of numbers"),
        ({"splits": _agedb(pairs=np.ones((2, 3)))}, "split 1: pairs is no array of two rows of structures"),
        ({"splits": _agedb(image={"name": "Ann_A_20"})}, "split 1, pair 1: the name is 'Ann_A_20'; expected"),
        ({"splits": _agedb(image={"name": [[1.0]]})}, "split 1, pair 1: the name is"),
        ({"splits": _agedb(image={"name": "7_../../secret"})}, "split 1, pair 1: .* leads out of the folder"),
        ({"splits": {"annot": [[1]]}}, "split 1: there is no pairs"),
        ({"splits": "ten"}, "split 1: there is no pairs"),
        ({"splits": np.empty((0, 0), object)}, "the list holds no pair"),
    ],
)
def test_agedb_protocols_of_another_form_are_refused_with_the_place(tmp_path, content, message):
    path = tmp_path / "04_FINAL_protocol_30_years.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(PairError, match=rf"04_FINAL_protocol_30_years.mat: .*{message}"):
        read_pair_list(path)


def test_a_name_that_is_too_long_for_a_file_is_an_image_that_is_missing(tmp_path):
    (tmp_path / "agedb").mkdir()
    splits = _agedb(image={"name": "7_" + "a" * 300})
    scipy.io.savemat(tmp_path / "agedb" / "04_FINAL_protocol_20_years.mat", {"splits": splits})
    with pytest.raises(PairError, match=r"split 1, pair 1: the image 7_aaa.* cannot be read"):
        load_pairs("agedb_20", tmp_path)


def test_rfw_is_four_sets_from_lists_or_bins(tmp_path):
    write_rfw_lists(tmp_path / "lists" / "rfw" / "test", GROUPS)
    write_rfw_bins(tmp_path / "rfw", GROUPS)
    listed, binned = load_pair_sets("rfw", tmp_path / "lists"), load_pair_sets("rfw", tmp_path)
    names = [f"rfw_{group.lower()}" for group in GROUPS]
    assert [pairs.name for pairs in listed] == [pairs.name for pairs in binned] == names
    assert listed[0].is_same.tolist() == [True, False] * 10
    assert listed[0].folds.tolist() == [i // 2 for i in range(20)]
    assert list(listed[3].names[:2]) == ["m.0in0/m.0in0_0001.jpg", "m.0in0/m.0in0_0002.jpg"]
    assert list_targets(tmp_path / "lists") == ["rfw", *names]
    assert load_pairs("rfw_asian", tmp_path / "lists").data_sha256 == listed[1].data_sha256
    (tmp_path / "rfw" / "Asian_test.bin").unlink()
    with pytest.raises(PairError, match=r"rfw is four groups; not there: Asian. Looked for rfw/Asian_test.bin"):
        load_pair_sets("rfw", tmp_path)


def test_view_1_chooses_on_one_list_and_scores_on_another(tmp_path):
    write_lfw_images(tmp_path / "lfw" / "images", {"Ann": 3, "Bob": 3, "Cyd": 2})
    (tmp_path / "lfw" / "pairsDevTrain.txt").write_text("2\nAnn\t1\t2\nAnn\t2\t3\nAnn\t1\tBob\t1\nAnn\t2\tBob\t2\n")
    (tmp_path / "lfw" / "pairsDevTest.txt").write_text("1\nCyd\t1\t2\nCyd\t1\tBob\t3\n")
    assert list_targets(tmp_path) == ["lfw_view1"]
    pairs = load_pairs("lfw_view1", tmp_path)
    assert (pairs.num_folds, pairs.is_same.tolist()) == (1, [True, False])
    assert pairs.development is not None
    assert pairs.development.is_same.tolist() == [True, True, False, False]
    both = f"{load_pairs('lfw/images:lfw/pairsDevTest.txt', tmp_path).data_sha256}\n{pairs.development.data_sha256}\n"
    assert pairs.data_sha256 == hashlib.sha256(both.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "file", "images"),
    [("xqlfw", "xqlfw_pairs.txt", "xqlfw_aligned_112"), ("sllfw", "pair_SLLFW.txt", "../lfw/images")],
)
def test_other_names_of_lists_and_folders(tmp_path, name, file, images):
    (tmp_path / name).mkdir()
    write_lfw_images(tmp_path / name / images, {"Ann": 2, "Bob": 2})
    if name == "xqlfw":
        (tmp_path / name / file).write_text("1 1\nAnn\t1\t2\nAnn\t1\tBob\t2\n")
    else:
        (tmp_path / name / file).write_text("Ann/Ann_0001.jpg\nAnn/Ann_0002.jpg\nAnn/Ann_0001.jpg\nBob/Bob_0002.jpg\n")
    pairs = load_pairs(name, tmp_path)
    assert pairs.is_same.tolist() == [True, False]
    np.testing.assert_array_equal(pairs.images[3], decode_image(encode_jpeg(face(1, 2))))


def test_lists_of_ones_own(tmp_path):
    for number, file in enumerate(("a/1.jpg", "a/2.jpg", "b/1.jpg", "loose.jpg")):
        write_image(tmp_path / "mine" / "images" / file, number, 0)
    path = tmp_path / "mine" / "pairs.csv"
    path.write_text(
        "first,second,is_same,fold\na/1.jpg,a/2.jpg,true,7\na/1.jpg, b/1.jpg ,0,7\na/2.jpg,a/1.jpg,same,3\n"
    )
    pairs = load_pairs("mine", tmp_path)
    assert pairs.is_same.tolist() == [True, False, True]
    assert pairs.folds.tolist() == [1, 1, 0]
    assert pairs.identities.tolist() == [0, 0, 0, 1, 0, 0]
    path.rename(tmp_path / "mine" / "pairs.txt")
    (tmp_path / "mine" / "pairs.txt").write_text("a/1.jpg b/1.jpg -1\na/1.jpg loose.jpg 1\n")  # as AgeDB-30 goes around
    pairs = load_pairs("mine", tmp_path)
    assert (pairs.is_same.tolist(), pairs.folds.tolist(), pairs.identities.tolist()) == (
        [False, True],
        [0, 1],
        [0, 1, 0, -1],
    )
    path.write_text("a/1.jpg,a/2.jpg,1\n")
    with pytest.raises(
        PairError, match=r"mine: .* holds pairs.txt and pairs.csv; say which: mine/images:mine/pairs.txt or"
    ):
        load_pairs("mine", tmp_path)
    assert load_pairs("mine/images:mine/pairs.csv", tmp_path).is_same.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.jpg,a/2.jpg,maybe\n", "line 1: expected image, image, is_same .*got 'a/1.jpg a/2.jpg maybe'"),
        ("a/1.jpg,a/2.jpg,1,0\na/1.jpg,a/2.jpg,1\n", "line 2: expected .* as many words on every line"),
        ("a/1.jpg,a/2.jpg,1,two\n", "line 1: expected image, image"),
        ("a/1.jpg,a/2.jpg,1\n../a/1.jpg,a/2.jpg,1\n", r"line 2: '\.\./a/1.jpg' leads out of the folder"),
        ("first,second,is_same\n", "the pair list is empty"),
        ("a/1.jpg,a/2.jpg,1\na/3.jpg,a/2.jpg,1\n", r"line 2: the image .*a/3.jpg cannot be read"),
        ("a/9.jpg,a/2.jpg,1\n", r"line 1: the image a/9.jpg cannot be read: it is in none of .*mine/images, .*mine"),
    ],
)
def test_csv_lines_that_do_not_fit_are_named(tmp_path, text, message):
    for file in ("a/1.jpg", "a/2.jpg"):
        write_image(tmp_path / "mine" / "images" / file, 0, 0)
    (tmp_path / "mine" / "pairs.csv").write_text(text)
    with pytest.raises(PairError, match=message):
        load_pairs("mine", tmp_path)


def test_a_list_of_no_known_form_names_the_known_ones(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "pairs.txt").write_text("hello world again and again\n")
    with pytest.raises(
        PairError, match=r"line 1: no known list of pairs begins with 'hello .*`10 300` or .*CALFW.*\.csv"
    ):
        load_pairs("x", tmp_path)


@needs_lfw
def test_lfw_names_the_people_of_every_pair():
    pairs = load_pairs("lfw", SHARED)
    assert (pairs.identities[0::2] == pairs.identities[1::2]).tolist() == pairs.is_same.tolist()
    assert np.bincount(pairs.folds).tolist() == [600] * 10
    people = [set(pairs.identities[np.repeat(pairs.folds == fold, 2)].tolist()) for fold in range(10)]
    assert sum(len(one) for one in people) == len(set().union(*people)) == 4281  # no identity in two folds
