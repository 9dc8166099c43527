"""Checks across keys, with head classes made up for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from utils.config import ConfigError, load_config, missing_data_message


class Margin:
    """A head on cosines that takes options of several types."""

    supports_margin_warmup = True
    normalize_embeddings = normalize_prototypes = True

    def __init__(self, scale: float, margin: float = 0.5, cap: float | None = 15.0, easy: bool = False) -> None:
        if margin < 0:
            raise ValueError(f"margin must be at least 0, got {margin}")
        self.options = (scale, margin, cap, easy)


class Plain:
    """A head on inner products without options."""

    supports_margin_warmup = False
    normalize_embeddings = normalize_prototypes = False


class Net:
    """A net with an option of its own."""

    def __init__(
        self, embedding_size: int, dropout: float, gradient_checkpointing: bool, in_channels: int, width: float = 1.0
    ) -> None:
        self.width = width


HEADS: dict[str, type] = {"margin": Margin, "plain": Plain}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads a config of the given lines against HEADS and two backbones."""
    path = tmp_path / "run.py"

    def load(*lines: str) -> Any:
        path.write_text("\n".join(("config = dict(rec='faces', head='plain')", *lines)), encoding="utf-8")
        return load_config(path, heads=HEADS, backbones={"r50": Net, "r200": Net}, regularizers={"zero_centroid": 1})

    return load


def problems_of(load: Any, *lines: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*lines)
    return [problem.split("run.py: ", 1)[1] for problem in caught.value.problems]


def test_right_options_take_the_arguments_types(load: Any) -> None:
    config = load("config.update(head='margin', head_options=dict(scale=64, cap=None, easy=True))")
    assert config.head_options == {"scale": 64.0, "cap": None, "easy": True}
    assert type(config.head_options["scale"]) is float


def test_wrong_options_list_the_right_ones(load: Any) -> None:
    assert problems_of(load, "config.update(head='margin', head_options=dict(margn=0.5, easy=1))") == [
        "head 'margin' has no option 'margn'. Did you mean 'margin'? It has: scale, margin=0.5, cap=15.0, easy=False.",
        "head_options.easy = 1, but head 'margin' takes True or False.",
        "head 'margin' also needs scale. It has: scale, margin=0.5, cap=15.0, easy=False.",
    ]
    assert problems_of(load, "config.update(head_options=dict(margin=1))") == [
        "head 'plain' has no option 'margin'. It has: none."
    ]


def test_a_heads_own_ranges_are_reported(load: Any) -> None:
    assert problems_of(load, "config.update(head='margin', head_options=dict(scale=1.0, margin=-1))") == [
        "head 'margin' with {'scale': 1.0, 'margin': -1.0}: margin must be at least 0, got -1.0"
    ]


def test_unknown_names_list_the_known(load: Any) -> None:
    assert problems_of(load, "config.update(head='margni', network='r2060', regularizers=dict(zero_centroids=1))") == [
        "network 'r2060' is not among those here. Did you mean 'r200'? Have: r200, r50, timm:NAME, torchvision:NAME.",
        "regularizer 'zero_centroids' is not among those here. Did you mean 'zero_centroid'? Have: zero_centroid.",
        "head 'margni' is not among those here. Did you mean 'margin'? Have: margin, plain.",
    ]
    assert load("config['network'] = 'torchvision:resnet18'").network == "torchvision:resnet18"


def test_what_a_head_does_not_support(load: Any) -> None:
    assert problems_of(load, "config.update(margin_warmup_epochs=1, interclass_filter=0.4)") == [
        "interclass_filter = 0.4 is a cosine, but head 'plain' works on inner products. "
        "Set it to None, or choose a head on cosines, as arcface.",
        "margin_warmup_epochs = 1, but head 'plain' has no margin that can grow. "
        "Set it to 0, or choose one of: margin.",
    ]
    load("config.update(head='margin', head_options=dict(scale=1), margin_warmup_epochs=1, interclass_filter=0.4)")


def test_warm_ups_fit_into_the_run(load: Any) -> None:
    assert problems_of(load, "config.update(num_epoch=2, warmup_epoch=2.5)") == [
        "warmup_epoch = 2.5 exceeds num_epoch = 2. Lower it, or train longer."
    ]


def test_verification_sets_need_a_folder(load: Any) -> None:
    assert problems_of(load, "config.update(rec='synthetic', val_targets=('lfw',))") == [
        "val_targets are set, but rec = 'synthetic' is no folder to find them in. Set val_dir to theirs."
    ]
    assert load("config.update(rec='synthetic', val_targets=('lfw',), val_dir='data')").verification_dir == "data"


def test_nothing_is_concluded_from_a_key_that_is_wrong_itself(load: Any) -> None:
    problems = problems_of(load, "config.update(rec=3, head=7, num_epoch='x', warmup_epoch=30)")
    assert [problem.split(" = ")[0] for problem in problems] == ["rec", "head", "num_epoch"]


def test_missing_data_says_what_to_do(load: Any, tmp_path: Path) -> None:
    config = load(f"config['rec'] = {str(tmp_path / 'absent')!r}")
    message = missing_data_message(config)
    assert message is not None
    for part in (config.source, str(tmp_path / "absent"), "rec=/path/to/data", "python -m tools.records pack"):
        assert part in message
    assert missing_data_message(load(f"config['rec'] = {str(tmp_path)!r}")) is None
    assert missing_data_message(load("config['rec'] = 'synthetic'")) is None


def test_what_belongs_to_the_other_task(load: Any) -> None:
    assert problems_of(load, "config.update(test='digits:test')") == [
        "test = 'digits:test' belongs to task='classification'. Set that, or leave test out."
    ]
    assert problems_of(load, "config.update(task='classification', val_targets=('lfw',))") == [
        "val_targets = ('lfw',) score faces; a classification is scored on test."
    ]
    assert load("config.update(task='classification', test='digits:test')").test == "digits:test"


def test_milestones_fit_schedule_and_run(load: Any) -> None:
    right = load("config.update(lr_schedule='step', lr_milestones=(3, 4.5), num_epoch=5)")
    assert right.lr_milestones == (3.0, 4.5)
    wrong = {
        "lr_milestones=(3,)": "lr_milestones = (3.0,) are for lr_schedule='step', not 'polynomial'. Set that.",
        "lr_schedule='step'": "lr_schedule = 'step' needs lr_milestones, as in lr_milestones=(6, 8).",
    }
    for keys, words in wrong.items():
        assert problems_of(load, f"config.update({keys})") == [words]
    for milestones in ("(4, 3)", "(0, 3)", "(3, 5)", "(3, 3)"):
        found = problems_of(load, f"config.update(lr_schedule='step', lr_milestones={milestones}, num_epoch=5)")
        assert len(found) == 1, found
        assert "must grow, from above 0 to below num_epoch = 5" in found[0]


def test_options_of_the_network(load: Any) -> None:
    assert load("config.update(network_options=dict(width=2))").network_options == {"width": 2.0}
    wrong = {
        "widht=2": "network 'r50' has no option 'widht'. Did you mean 'width'? It has: width=1.0.",
        "width='wide'": "network_options.width = 'wide', but network 'r50' takes a number.",
        "stem='cifar'": "network 'r50' has no option 'stem'. It has: width=1.0. Without any: network_options={}.",
        "dropout=0.1": "network_options.dropout: dropout is a key of its own, write dropout=VALUE.",
    }
    for options, words in wrong.items():
        assert problems_of(load, f"config.update(network_options=dict({options}))") == [words]


def test_another_network_of_the_family_keeps_the_options(load: Any) -> None:
    lines = ("config.update(network_options=dict(width=2))", "config.update(network='r200')")
    assert (load(*lines).network, load(*lines).network_options) == ("r200", {"width": 2.0})
