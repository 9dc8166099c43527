"""The split of one set, entries of several images, and one numbering for two sets."""

from __future__ import annotations

import numpy as np
import pytest

from eval.gallery_split import common_labels, pool_identities, split_set
from eval.similarity_blocks import GalleryError

LABELS = np.array([1, 0, 1, -1, 2, 1, 0, 3, 4, 4])  # 0: 2 images, 1: 3, 2: 1, 3: 1, 4: 2


def test_the_first_images_are_enrolled_and_those_with_too_few_are_impostors():
    split = split_set(LABELS)
    assert split.gallery.tolist() == [0, 1, 8]
    assert split.probes.tolist() == [2, 4, 5, 6, 7, 9]
    assert split.num_left_out == 1
    two = split_set(LABELS, enroll=2)
    assert two.gallery.tolist() == [0, 2]
    assert two.probes.tolist() == [1, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("share", "outside"), [(0.0, []), (0.25, [3, 7]), (0.5, [1, 3, 5, 7]), (0.3, [3, 6])])
def test_a_share_of_those_who_could_be_enrolled_stays_outside(share, outside):
    labels = np.repeat(np.arange(8), 2)
    split = split_set(labels, impostor_share=share)
    assert sorted(set(range(8)) - set(labels[split.gallery].tolist())) == outside
    assert len(split.gallery) + len(split.probes) == 16
    assert sorted(set(labels[split.probes].tolist())) == list(range(8))


def test_the_split_does_not_depend_on_the_numbering_of_images_of_others():
    labels = np.random.default_rng(0).integers(0, 30, 200)
    split = split_set(labels, enroll=3, impostor_share=0.2)
    for identity in np.unique(labels[split.gallery]):
        images = np.flatnonzero(labels == identity)
        assert np.intersect1d(images, split.gallery).tolist() == images[:3].tolist()


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (LABELS, {"enroll": 0}, "enroll must be 1 or more"),
        (LABELS, {"impostor_share": 1.0}, r"in \[0, 1\)"),
        (np.arange(5), {}, "nobody can be enrolled: 0 of 5 identities have more than 1 images"),
        (np.full(4, -1), {}, "0 of 0 identities"),
    ],
)
def test_nobody_to_enroll(labels, options, words):
    with pytest.raises(GalleryError, match=words):
        split_set(labels, **options)


def test_several_images_become_one_entry_and_strangers_stay_apart():
    embeddings = np.array([[3.0, 0.0], [0.0, 0.1], [0.0, 5.0], [-1.0, 0.0], [2.0, 0.0]])
    entries, labels = pool_identities(embeddings, np.array([4, 4, -1, 7, -1]))
    assert labels.tolist() == [4, 7, -1, -1]
    half = np.sqrt(0.5)  # directions are averaged: the long image does not weigh more
    np.testing.assert_allclose(entries, [[half, half], [-1, 0], [0, 1], [1, 0]], atol=1e-6)


def test_identities_of_two_sets_meet_by_name():
    first, second = common_labels(
        np.array([0, 1, -1]), np.array(["bob", "ann"]), np.array([0, -1, 1, 2]), np.array(["ann", "cid", "bob"])
    )
    assert first.tolist() == [1, 0, -1]
    assert second.tolist() == [0, -1, 2, 1]
    empty = np.array([], dtype=np.str_)
    first, second = common_labels(np.array([-1, -1]), empty, np.array([0]), np.array(["ann"]))
    assert (first.tolist(), second.tolist()) == ([-1, -1], [0])
