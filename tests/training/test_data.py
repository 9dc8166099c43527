"""What of a config reaches the training data, and that the test half is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataset import open_source, test_location
from tests.records import make_record_set
from training.data import open_training_source
from training.preflight import inspect_run
from utils.config import Config, ConfigError, load_config
from utils.image_format_file import write_image_format

find_test_half = test_location
del test_location  # pytest takes every name that begins so for a test


def test_imbalance_shapes_the_training_data_only(tmp_path: Path) -> None:
    config = Config(
        rec="digits", imbalance="step", imbalance_ratio=10.0, network="digits", output=str(tmp_path / "run")
    )
    source = inspect_run(config).source
    assert source is not None
    whole = open_source("digits").class_counts()
    assert source.class_counts().tolist() == [*whole[:5], *whole[5:] // 10]
    assert source.describe()["imbalance_seed"] == config.seed
    location = find_test_half(config.rec)
    assert location is not None
    assert len(open_source(location)) == 355


def test_without_imbalance_the_source_is_as_it_was() -> None:
    assert open_training_source(Config(rec="digits")).describe() == open_source("digits").describe()


def test_num_image_is_held_against_what_is_left(tmp_path: Path) -> None:
    rec = str(make_record_set(tmp_path / "set", [6, 6]))
    config = Config(rec=rec, imbalance="step", imbalance_ratio=3.0, num_image=12, output=str(tmp_path / "run"))
    assert any("num_image = 12, but" in line and "holds 8" in line for line in inspect_run(config).problems)


def test_a_resumed_run_keeps_its_mean_image_whatever_became_of_the_data(tmp_path: Path) -> None:
    config = Config(rec="digits", normalization="mean_image", output=str(tmp_path))
    fresh = open_training_source(config).image_format
    assert fresh.mean_image
    assert open_training_source(replace(config, resume=True)).image_format == fresh
    write_image_format(tmp_path, replace(fresh, std=fresh.std * 2), "mean_image")
    resumed = open_training_source(replace(config, resume=True))
    assert resumed.image_format == replace(fresh, std=fresh.std * 2)
    assert resumed.describe()["normalization"] == "mean_image"
    assert open_training_source(config).image_format == fresh
    write_image_format(tmp_path, replace(fresh, std=fresh.std * 2), "source")  # of another setting
    assert open_training_source(replace(config, resume=True)).image_format == fresh


@pytest.mark.parametrize("ratio", ["0.9", "float('inf')"])
def test_ratios_that_are_none(ratio: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(f"config = dict(rec='digits', imbalance='step', imbalance_ratio={ratio})")
    with pytest.raises(ConfigError, match=r"imbalance_ratio = .*must be a number, at least 1"):
        load_config(str(tmp_path / "run.py"))
