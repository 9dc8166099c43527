"""Every kind of bad record, at rates from one to half, under both policies: what is delivered and what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset import Batch, EpochOrder, KnownClasses, build_loader, open_source
from sources import Source, SourceError
from sources.substitutes import MAX_TRIES, substitutes
from tests.damage import PAYLOADS, REASONS, SIZE, make_damaged_set
from tests.records import make_record_set, picture
from utils.images import encode_jpeg
from utils.recordio import RecordError, RecordHeader, RecordReader, RecordWriter, pack_record

IMAGES, BATCH, SEED = 24, 6, 5
RATES = {"two": [3, 17], "half": [index for index in range(IMAGES) if index % 2]}
every_kind = pytest.mark.parametrize("kind", sorted(REASONS))


def stream(source: Source, **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {
        "seed": SEED, "batch_size": BATCH, "rank": 0, "world_size": 1, "first_batch": 0, "last_batch": 8,
        "num_workers": 0, "augmentation": "none", "bad_records": "skip", "carry_failures": True,
    }  # fmt: skip
    return list(build_loader(source, **(options | changes)))


def expected_indices(number: int, bad: list[int]) -> tuple[list[int], set[int]]:
    """The images that batch `number` shows where `bad` are bad, and the bad ones that are met on the way."""
    epoch, batch = divmod(number, IMAGES // BATCH)
    shown, met = [], set()
    for index in EpochOrder(IMAGES, SEED).indices(epoch, batch * BATCH, (batch + 1) * BATCH).tolist():
        walk = [index, *substitutes(index, IMAGES, SEED, epoch)]
        good = next(other for other in walk if other not in bad)
        shown.append(good)
        met |= set(walk[: walk.index(good)])
    return shown, met


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(str(make_record_set(tmp_path_factory.mktemp("sound"), [8, 8, 8], SIZE, SIZE)))


@every_kind
@pytest.mark.parametrize("rate", sorted(RATES))
def test_skipped_images_are_replaced_by_known_ones(kind: str, rate: str, sound: Source, tmp_path: Path) -> None:
    bad = RATES[rate]
    source = open_source(str(make_damaged_set(tmp_path, kind, bad)))
    batches = stream(source)
    for number, batch in enumerate(batches):
        shown, met = expected_indices(number, bad)
        for row, index in enumerate(shown):
            image, label = sound.read(index)
            assert np.array_equal(batch.images[row].numpy(), image)
            assert batch.labels[row] == label
        assert {image.index for image in batch.bad} == met
        assert batch.failure is None
    met_images = {image.index: image for batch in batches for image in batch.bad}
    assert sorted(met_images) == bad, "two epochs meet every image"
    for image in met_images.values():
        assert image.key == image.index + 1
        assert image.file == str(tmp_path / "train.rec")
        assert REASONS[kind] in image.reason
        with RecordReader(tmp_path / "train.rec") as reader:
            assert image.offset == reader.offset(image.key)


@every_kind
def test_workers_skip_alike(kind: str, tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, kind, RATES["half"])))
    for here, there in zip(stream(source), stream(source, num_workers=2), strict=True):
        assert torch.equal(here.images, there.images)
        assert torch.equal(here.labels, there.labels)
        assert here.bad == there.bad


@every_kind
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stop_names_the_record(kind: str, num_workers: int, tmp_path: Path) -> None:
    bad = [7, 20]
    source = open_source(str(make_damaged_set(tmp_path, kind, bad)))
    first = next(number for number in range(4) if expected_indices(number, bad)[1])
    options = {"bad_records": "stop", "num_workers": num_workers, "last_batch": 4}
    batches = stream(source, **options)
    error = batches[first].failure
    assert isinstance(error, RecordError)
    assert error.key in (8, 21)
    with RecordReader(tmp_path / "train.rec") as reader:
        named = f"{tmp_path / 'train.rec'}, record {error.key}, byte {reader.offset(error.key)}: "
    assert str(error).startswith(named)
    assert REASONS[kind] in str(error)
    assert f"batch {first} of epoch 0" in str(error)
    assert batches[first].images.shape == (BATCH, SIZE, SIZE, 3)
    assert not batches[first].labels.any()
    assert all(batch.failure is None for batch in batches[:first])
    with pytest.raises(RecordError, match=REASONS[kind]):
        stream(source, **options, carry_failures=False)


@pytest.mark.parametrize("kind", ["grey", "cmyk"])
def test_grey_and_cmyk_become_rgb(kind: str, sound: Source, tmp_path: Path) -> None:
    assert not PAYLOADS[kind][1]
    source = open_source(str(make_damaged_set(tmp_path, kind, list(range(IMAGES)))))
    assert not [batch for batch in stream(source, bad_records="stop") if batch.failure]
    for index in range(IMAGES):
        image, original = source.read(index)[0].astype(int), sound.read(index)[0].astype(int)
        if kind == "grey":
            assert np.array_equal(image, np.repeat(image[:, :, :1], 3, axis=2))
            assert abs(image[:, :, 0] - original.mean(axis=2)).max() < 8
        else:
            assert abs(image - original).mean() < 8


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("augmentation", ["flip"])
def test_ranks_together_skip_as_one_does(world_size: int, augmentation: str, tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, "truncated", RATES["half"])))
    alone = stream(source, augmentation=augmentation)
    parts = [
        stream(source, batch_size=BATCH // world_size, rank=rank, world_size=world_size, augmentation=augmentation)
        for rank in range(world_size)
    ]
    for number, batch in enumerate(alone):
        assert torch.equal(torch.cat([part[number].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[number].labels for part in parts]), batch.labels)
        assert sum((part[number].bad for part in parts), ()) == batch.bad


def test_a_resumed_stream_skips_alike(tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, "magic_flipped", RATES["half"])))
    whole = stream(source)
    for first in (1, 5):
        for batch, again in zip(whole[first:], stream(source, first_batch=first), strict=True):
            assert torch.equal(batch.images, again.images)
            assert batch.bad == again.bad


def test_substitutes_reach_all_of_a_small_set_and_differ_by_epoch() -> None:
    for size in (1, 2, 3, 12, 97, 256):
        for index in (0, size - 1):
            assert sorted([*substitutes(index, size, 1, 0), index]) == list(range(size))
    assert list(substitutes(5, 1000, 1, 0)) != list(substitutes(5, 1000, 1, 1))
    assert list(substitutes(5, 1000, 1, 0)) != list(substitutes(5, 1000, 2, 0))
    many = list(substitutes(5, 42_474_558, 1, 0))
    assert len(set(many)) == len(many) >= MAX_TRIES - 1
    starts = [next(substitutes(index, 100, 1, 0)) for index in range(2000)]
    assert np.bincount(starts, minlength=100).min() > 4, "20 on average: no image stands in for many"


def test_a_set_without_a_good_image_ends_with_what_was_tried(tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, "empty", list(range(IMAGES)))))
    batch = stream(source, last_batch=1)[0]
    assert isinstance(batch.failure, SourceError)
    assert f"None of the {IMAGES - 1} images tried in its place can be read either" in str(batch.failure)
    assert "record " in str(batch.failure)
    assert "the image is empty" in str(batch.failure)


def test_one_good_image_is_enough(tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, "empty", [i for i in range(IMAGES) if i != 11])))
    for batch in stream(source, last_batch=2):
        assert set(batch.labels.tolist()) == {1}


def joined_set(folder: Path, ids: list[int]) -> Source:
    with RecordWriter(folder / "train.rec", folder / "train.idx") as writer:
        for key, own in enumerate(ids):
            writer.write(key, pack_record(RecordHeader(0, float(key % 2), own), encode_jpeg(picture(key, SIZE, SIZE))))
    return open_source(str(folder))


@pytest.mark.parametrize("ids", [[0] * 12, [*range(6), *range(6)], [100 + n for n in range(12)], [7] * 12])
def test_ids_that_are_no_keys_are_nobodys_fault(ids: list[int], tmp_path: Path) -> None:
    """Zeros, two sets joined, a numbering of the writer's own: images and labels travel together, so all is well."""
    source = joined_set(tmp_path, ids)
    assert [source.read(index)[1] for index in range(12)] == [0, 1] * 6


def test_a_line_of_the_index_written_twice_is_found(tmp_path: Path) -> None:
    joined_set(tmp_path, list(range(12)))
    lines = (tmp_path / "train.idx").read_text().splitlines()
    lines[4] = f"4\t{lines[9].split()[1]}"
    (tmp_path / "train.idx").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError, match=r"record 4, byte .*: the record here calls itself record 9"):
        open_source(str(tmp_path)).read(4)


@pytest.mark.parametrize("kind", ["label_too_large", "magic_flipped", "flag_flipped"])
def test_classes_of_a_set_whose_headers_are_damaged(kind: str, tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, kind, [0, 3, 8, 23])))  # edges of identities too
    with pytest.raises(RecordError, match=REASONS[kind]):
        KnownClasses(source, "stop").class_counts()
    known = KnownClasses(source, "skip")
    assert known.class_counts().tolist() == [6, 7, 7]
    index = known.class_index()
    assert index.counts.tolist() == [6, 7, 7]
    shown = {int(index.image(np.array([c]), np.array([k]))[0]) for c in range(3) for k in range(index.counts[c])}
    assert shown == set(range(IMAGES)) - {0, 3, 8, 23}


@pytest.mark.parametrize("sampler", ["class_balanced", "identities"])
def test_other_samplers_skip_too(sampler: str, tmp_path: Path) -> None:
    source = open_source(str(make_damaged_set(tmp_path, "label_too_large", [0, 3, 8, 23])))
    batches = stream(source, sampler=sampler, images_per_identity=3)
    assert not any(batch.failure or batch.bad for batch in batches), "unreadable labels are in no class"
    truncated = open_source(str(make_damaged_set(tmp_path / "b", "truncated", RATES["half"])))
    alike = [stream(truncated, sampler=sampler, images_per_identity=3, num_workers=n) for n in (0, 2)]
    for here, there in zip(*alike, strict=True):
        assert torch.equal(here.images, there.images)
        assert here.bad == there.bad
    assert any(batch.bad for batch in alike[0])


def test_a_policy_that_is_none() -> None:
    with pytest.raises(ValueError, match="bad_records 'ignore' is unknown; allowed: stop, skip"):
        stream(open_source("synthetic:3:30"), bad_records="ignore")
