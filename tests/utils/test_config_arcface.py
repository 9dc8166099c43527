"""arcface_torch's config files: small ones in its style, written for these tests, run unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backbones import BACKBONES
from losses import HEADS
from utils.config import Config, ConfigError, load_config
from utils.config_arcface import ANSWERS, TRANSLATIONS

BASE = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.5, 0.0)
config.network = "r50"
config.output = "from_base"
config.sample_rate = 1
config.interclass_filtering_threshold = 0
config.fp16 = False
config.verbose = 2000
config.frequent = 10
config.save_all_states = False
config.dali = False
config.dali_aug = False
config.using_wandb = False
config.wandb_key = "a-secret"
config.suffix_run_name = None
config.num_workers = 2
"""
RUN = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "mbf"
config.resume = False
config.output = None
config.embedding_size = 512
config.sample_rate = 0.2
config.interclass_filtering_threshold = 0.4
config.fp16 = True
config.momentum = 0.9
config.weight_decay = 1e-4
config.batch_size = 512
config.lr = 0.4
config.dali = True
config.rec = "/somewhere/faces"
config.num_classes = 30 * 10000
config.num_image = 100000
config.num_epoch = 40
config.warmup_epoch = config.num_epoch // 10
config.val_targets = []
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads RUN plus lines, with BASE beside it as arcface_torch has it."""

    def load(*lines: str, overrides: tuple[str, ...] = ()) -> Config:
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / "base.py").write_text(BASE, encoding="utf-8")
        (tmp_path / "configs" / "run.py").write_text(RUN + "\n".join(lines), encoding="utf-8")
        return load_config("configs/run", overrides)

    monkeypatch.chdir(tmp_path)
    return load


def test_a_whole_file_runs_unchanged(load: Any) -> None:
    config = load()
    assert (config.head, config.head_options) == ("cosface", {"scale": 64.0, "margin": 0.4})
    assert (config.precision, config.interclass_filter, config.sample_rate) == ("fp16", 0.4, 0.2)
    assert (config.network, config.num_classes, config.num_image, config.val_targets) == ("mbf", 300000, 100000, ())
    assert (config.warmup_epoch, config.num_epoch, config.lr_power) == (4.0, 40, 1.0)
    assert config.output == "work_dirs/run", "output = None takes base.py's output back"


def test_one_note_for_each_key_that_means_something_else(load: Any) -> None:
    notes = load().notes
    for name in (
        "margin_list", "fp16", "interclass_filtering_threshold", "save_all_states", "dali", "dali_aug", "using_wandb",
        "wandb_key", "suffix_run_name", "lr_power",
    ):  # fmt: skip
        assert len([note for note in notes if note.split(": ")[1].split()[0] == name]) == 1, (name, notes)
    assert len(notes) == 10
    assert (
        "configs/run.py: margin_list = (1.0, 0.0, 0.4) is read as head = 'cosface', "
        "head_options = {'scale': 64.0, 'margin': 0.4}."
    ) in notes
    assert "configs/run.py: dali has no effect: images are decoded by num_workers reader processes per rank." in notes


def test_a_wandb_key_is_never_kept(load: Any) -> None:
    config = load()
    assert "a-secret" not in str(config.to_dict())


@pytest.mark.parametrize(
    ("margins", "head", "options"),
    [
        ("(1.0, 0.5, 0.0)", "arcface", {"scale": 64.0, "margin": 0.5}),
        ("[1, 0, 0.35]", "cosface", {"scale": 64.0, "margin": 0.35}),
        ("(1.0, 0.0, 0.0)", "normface", {"scale": 64.0}),
        ("(1.0, 0.3, 0.2)", "combined", {"scale": 64.0, "m1": 1.0, "m2": 0.3, "m3": 0.2}),
        ("(1.35, 0.0, 0.0)", "combined", {"scale": 64.0, "m1": 1.35, "m2": 0.0, "m3": 0.0}),
    ],
)
def test_margin_list_becomes_a_head(load: Any, margins: str, head: str, options: dict[str, float]) -> None:
    for config in (load(f"config.margin_list = {margins}"), load(overrides=(f"margin_list={margins}",))):
        assert (config.head, config.head_options) == (head, options)


def test_a_mix_of_margins_says_what_arcface_torch_would_have_done(load: Any) -> None:
    notes = load("config.margin_list = (1, .3, .2)").notes
    assert any(note.endswith(" arcface_torch would train CosFace with m3 alone.") for note in notes)


def test_values_that_arcface_torch_takes_otherwise(load: Any) -> None:
    values = {"warmup_epoch": -1, "sample_rate": 0, "gradient_acc": 12, "momentum": 0.5}
    config = load(*(f"config.{name} = {value}" for name, value in values.items()))
    assert (config.warmup_epoch, config.sample_rate, config.gradient_acc, config.momentum) == (0.0, 1e-6, 12, 0.5)
    for expected in (
        "configs/run.py: warmup_epoch = -1 is read as 0.0, no warm-up.",
        "configs/run.py: sample_rate = 0 is read as 1e-06: as many classes as the batch has images.",
        "configs/run.py: gradient_acc = 12 averages the gradients here; arcface_torch adds them up.",
        "configs/run.py: momentum = 0.5 counts here; arcface_torch trains with 0.9 regardless.",
    ):
        assert expected in config.notes


TRANSFORMERS = {
    "vit_t_dp005_mask0": False, "vit_s_dp005_mask_0": False, "vit_b_dp005_mask_005": True,
    "vit_l_dp005_mask_005": True, "vit_h": True, "vit_t": False,
}  # fmt: skip


@pytest.mark.parametrize(("network", "recomputed"), TRANSFORMERS.items())
def test_configs_of_transformers_load_with_the_registries(load: Any, network: str, recomputed: bool) -> None:
    lines = (
        f"config.network = {network!r}",
        "config.optimizer = 'adamw'",
        "config.lr = 0.001",
        "config.verbose = 2000",
    )
    load(*lines)
    config = load_config("configs/run", heads=HEADS, backbones=BACKBONES)
    assert (config.network, config.optimizer, config.gradient_checkpointing) == (network, "adamw", recomputed)
    said = (
        f"configs/run.py: gradient_checkpointing = True, since arcface_torch always recomputes the blocks of {network}."
    )
    assert (said in config.notes) == recomputed
    assert not load(*lines, "config.gradient_checkpointing = False").gradient_checkpointing


def test_a_network_of_arcface_torch_that_is_not_here_is_answered(load: Any) -> None:
    load("config.network = 'r2060'")
    with pytest.raises(ConfigError, match=r"^configs/run\.py: network 'r2060' is not among those here\."):
        load_config("configs/run", heads=HEADS, backbones=BACKBONES)


def test_stated_decay_is_kept(load: Any) -> None:
    assert load(overrides=("lr_power=3",)).lr_power == 3.0
    assert load("config.lr_power = 2.0").lr_power == 2.0


def test_overrides_speak_both_languages(load: Any) -> None:
    assert load(overrides=("precision=bf16",)).precision == "bf16"
    assert load(overrides=("fp16=false",)).precision == "fp32"
    assert load(overrides=("head=softmax",)).head_options == {}


def test_wrong_values_of_translated_keys(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            "config.margin_list = (1.0, 0.5)", "config.fp16 = 'yes'", "config.interclass_filtering_threshold = 'no'",
        )  # fmt: skip
    assert caught.value.problems == (
        "configs/run.py: margin_list = (1.0, 0.5), but it must be three numbers (m1, m2, m3) of "
        "cos(m1 theta + m2) - m3, as (1.0, 0.5, 0.0).",
        "configs/run.py: interclass_filtering_threshold = 'no', but it must be a number: a cosine, or 0 for no filter.",
        "configs/run.py: fp16 = 'yes', but it must be True or False (or set precision to 'fp32', 'bf16' or 'fp16').",
    )


def test_saying_it_twice_is_an_error(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load("config.head = 'arcface'")
    assert caught.value.problems == (
        "configs/run.py: margin_list and head are both set, and say the same thing. Keep head.",
    )


def test_no_key_is_both_answered_and_read() -> None:
    own = set(Config.__dataclass_fields__) - {"name", "source", "notes"}
    assert not own & (set(ANSWERS) | set(TRANSLATIONS))
