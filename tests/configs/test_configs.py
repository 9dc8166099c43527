"""Every file in configs/ loads, says what it is for, and names only what this project has."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbones import BACKBONES
from losses import HEADS, REGULARIZERS
from utils.config import CONFIGS, ConfigError, load_config

FILES = sorted(path for path in CONFIGS.glob("*.py") if path.name != "__init__.py")
RUNS = [path for path in FILES if path.name != "base.py"]


def _names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize("path", RUNS, ids=_names(RUNS))
def test_every_config_loads_against_the_registries(path: Path) -> None:
    config = load_config(path, heads=HEADS, backbones=BACKBONES, regularizers=REGULARIZERS)
    assert config.output == f"work_dirs/{path.stem}"
    place = config.rec.rpartition(":")[2]
    assert place.startswith("data/") or place == "digits", "data lies below the working directory, whoever runs it"
    assert config.notes == (), "our own configs need no translation"


def test_base_alone_lacks_only_the_data() -> None:
    with pytest.raises(ConfigError, match=r"^configs/base\.py: rec is not set\."):
        load_config("base")
    config = load_config("base", ["rec=anywhere"], heads=HEADS, backbones=BACKBONES)
    assert (config.head, config.head_options, config.network) == ("svsoftmax", {}, "r50")


@pytest.mark.parametrize("path", FILES, ids=_names(FILES))
def test_every_config_is_data_with_a_docstring(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.startswith('"""')
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert all(line.startswith(("from easydict import EasyDict", "from configs.")) for line in imports), imports


def test_no_two_configs_are_the_same_run() -> None:
    def content(path: Path) -> str:
        values = load_config(path).to_dict()
        return repr({key: value for key, value in values.items() if key not in ("name", "source", "output")})

    seen: dict[str, str] = {}
    for path in (run for run in RUNS if not run.stem.endswith("_base")):
        assert seen.setdefault(content(path), path.stem) == path.stem, f"{path.stem} repeats {seen[content(path)]}"


def test_one_budget_for_all_heads_on_the_small_face_set() -> None:
    heads = {}
    compared = [
        run for run in RUNS if run.stem.startswith("faces_small_") and not run.stem.endswith(("_base", "_long"))
    ]
    for path in compared:
        config = load_config(path)
        heads[config.head] = (config.network, config.batch_size, config.num_epoch, config.rec, config.val_targets)
    assert set(heads) >= {"svsoftmax", "virtual_softmax", "arcface", "cosface", "softmax", "normface"}
    assert len(set(heads.values())) == 1, heads


def test_large_scale_recipe_is_the_published_one() -> None:
    config = load_config("ms1m_arcface")
    assert (config.lr, config.batch_size, config.num_epoch, config.lr_power) == (0.1, 128, 20, 1.0)
    assert (config.num_classes, config.num_image, config.weight_decay) == (93431, 5179510, 5e-4)
    assert config.head_options == {"scale": 64.0, "margin": 0.5}


def test_virtual_class_heads_start_from_the_authors_values() -> None:
    config = load_config("ms1m_svsoftmax")
    assert config.head_options == {"margin": 0.6, "virtual_logit_cap": 15.0}


def test_the_deeper_resnet_is_one_word_away() -> None:
    config = load_config("cifar10_resnet18_svsoftmax", ["network=resnet34"], heads=HEADS, backbones=BACKBONES)
    assert (config.network, config.network_options) == ("resnet34", {"stem": "imagenet"})
