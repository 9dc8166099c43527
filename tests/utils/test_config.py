"""Loading configs: files, layers, overrides, names, and every error by its text."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest

from utils.config import CONFIGS, Config, ConfigError, find_config, load_config

PLAIN = """
from easydict import EasyDict as edict

config = edict()
config.rec = "faces"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a configs/ folder, where ours is not in the way."""
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project: Path, name: str, *lines: str) -> Path:
    path = project / "configs" / f"{name}.py"
    path.write_text(PLAIN + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def problems_of(path: str | Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def test_defaults_and_frozen(project: Path) -> None:
    config = load_config(write(project, "my_run"))
    assert config.name == "my_run"
    assert config.source == "configs/my_run.py"
    assert config.output == "work_dirs/my_run"
    assert (config.rec, config.verification_dir, config.lr, config.head_lr) == ("faces", "faces", 0.1, None)
    with pytest.raises(AttributeError):
        config.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("spelling", ["configs/my_run.py", "configs/my_run", "my_run", "my_run.py", "configs.my_run"])
def test_config_is_found_by_path_and_by_name(project: Path, spelling: str) -> None:
    path = write(project, "my_run")
    assert find_config(spelling) == path.resolve()


@pytest.mark.parametrize("spelling", ["configs/quickstart.py", "configs/quickstart", "quickstart"])
def test_our_configs_are_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(spelling) == CONFIGS / "quickstart.py"
    assert load_config(spelling).source == "configs/quickstart.py"


def test_unknown_config_lists_what_there_is(project: Path) -> None:
    (problem,) = problems_of("quikstart")
    assert problem.startswith("quikstart: there is no such config in ")
    assert str(project) in problem
    assert "Did you mean 'quickstart'? Have: " in problem
    assert "ms1m_svsoftmax" in problem


def test_unknown_key_as_promised(project: Path) -> None:
    write(project, "my_run", "config.sample_rat = 0.1")
    assert problems_of("configs/my_run.py") == [
        "configs/my_run.py: unknown key 'sample_rat'. Did you mean 'sample_rate'?"
    ]


def test_all_problems_are_reported_at_once(project: Path) -> None:
    write(
        project, "bad", "config.sample_rate = 1.5", "config.lr = '0.1'", "config.optimizer = 'sdg'",
        "config.batch_size = True", "config.learning_rate = 1", "config.num_epoch = 2.5", "config.warmup_epoch = -1",
        "config.quux = 1",
    )  # fmt: skip
    problems = problems_of("bad", "lr0.1", "--seed=3", "lr.x=3", "head_option.margin=1", "frequent=0")
    assert problems == [
        "command line: 'lr0.1' is not of the form key=value, as in 'lr=0.05'.",
        "command line: '--seed=3' is not of the form key=value, as in 'seed=3'.",
        "command line: lr.x: lr has no parts, write lr=VALUE.",
        "command line: head_option.margin: unknown key 'head_option'. Did you mean 'head_options'?",
        "configs/bad.py: sample_rate = 1.5, but it must be a number, in (0, 1] "
        "(partial FC: share of the classes in each step; targets are always in).",
        "configs/bad.py: lr = '0.1', but it must be a number, above 0 "
        "(peak learning rate of the backbone, not scaled by ranks or batch).",
        "configs/bad.py: optimizer = 'sdg', but it must be 'sgd' or 'adamw' (for backbone and prototypes). "
        "Did you mean 'sgd'?",
        "configs/bad.py: batch_size = True, but it must be a whole number, at least 1 images "
        "(per rank and micro-batch).",
        "configs/bad.py: unknown key 'learning_rate'. Did you mean 'lr'?",
        "configs/bad.py: num_epoch = 2.5, but it must be a whole number, at least 1 epochs (passes over the data).",
        "configs/bad.py: warmup_epoch = -1, but it must be a number, at least 0 epochs "
        "(the learning rate grows to its peak over these).",
        "configs/bad.py: unknown key 'quux'. `python -m utils.config` lists all keys.",
        "command line: frequent = 0, but it must be a whole number, at least 1 steps (between log lines).",
    ]


def test_rec_must_be_set(project: Path) -> None:
    write(project, "my_run", "config.rec = ''")
    assert problems_of("my_run") == [
        "configs/my_run.py: rec is not set. Name the training data, as in rec=/path/to/faces."
    ]


def test_overrides_are_literals_and_win(project: Path) -> None:
    write(project, "my_run", "config.lr = 0.5", "config.head_options = edict(margin=0.4, scale=64)")
    config = load_config(
        "my_run",
        ["lr=1e-3", "head_options.margin=0.5", "val_targets=lfw,agedb_30", "resume=true", "head_lr=None", "rec=123",
         "output=runs/a=b", "regularizers.zero_centroid=0.1", "num_image=1e3", "compile=False"],
    )  # fmt: skip
    assert config.lr == 0.001
    assert config.head_options == {"margin": 0.5, "scale": 64}
    assert config.val_targets == ("lfw", "agedb_30")
    assert config.resume is True
    assert config.head_lr is None
    assert config.rec == "123"
    assert config.output == "runs/a=b"
    assert config.regularizers == {"zero_centroid": 0.1}
    assert config.num_image == 1000
    assert config.compile is False
    assert load_config("my_run", ["val_targets=('lfw',)"]).val_targets == ("lfw",)


def test_another_head_on_the_command_line_takes_the_files_options_away(project: Path) -> None:
    write(project, "my_run", "config.head = 'svsoftmax'", "config.head_options = {'margin': 0.6}")
    config = load_config("my_run", ["head=cosface", "head_options.scale=30.0"])
    assert (config.head, config.head_options) == ("cosface", {"scale": 30.0})
    assert config.notes == ("command line: head = 'cosface' replaces svsoftmax and its options {'margin': 0.6}.",)
    assert load_config("my_run", ["head=svsoftmax"]).head_options == {"margin": 0.6}


def test_one_file_builds_on_another_and_neither_is_changed(project: Path) -> None:
    write(project, "first", "config.lr = 0.5", "config.head_options = {'margin': 0.6}")
    second = project / "configs" / "second.py"
    second.write_text(
        "from configs.first import config\nconfig.lr = 0.25\nconfig.head_options.margin = 0.1\n", encoding="utf-8"
    )
    before = {name for name in sys.modules if name.split(".")[0] == "configs"}
    for _ in range(2):
        assert (load_config("second").lr, load_config("second").head_options) == (0.25, {"margin": 0.1})
        assert (load_config("first").lr, load_config("first").head_options) == (0.5, {"margin": 0.6})
    assert {name for name in sys.modules if name.split(".")[0] == "configs"} == before


def test_a_config_elsewhere_builds_on_ours(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.py"
    path.write_text("from configs.ms1m_arcface import config\nconfig.network = 'r100'\n", encoding="utf-8")
    config = load_config(path)
    assert (config.network, config.head, config.num_classes) == ("r100", "arcface", 93431)
    assert config.source == str(path)


def test_base_beside_the_file_is_read_first(project: Path) -> None:
    write(project, "base", "config.num_workers = 7", "config.lr = 0.5")
    write(project, "my_run", "config.lr = 0.25")
    config = load_config("my_run")
    assert (config.num_workers, config.lr) == (7, 0.25)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config = (", "configs/my_run.py:1: this is not Python: "),
        ("x = 1\nimport no_such_thing", "configs/my_run.py:2: running the file raised ModuleNotFoundError: No module "),
        ("1 / 0", "configs/my_run.py:1: running the file raised ZeroDivisionError: division by zero."),
        ("x = 1", "configs/my_run.py: a config file sets `config = edict()` and then `config.KEY = VALUE`, but this "
                  "one does not set it."),
        ("config = 3", "configs/my_run.py: a config file sets `config = edict()` and then `config.KEY = VALUE`, but "
                       "this one sets it to a int."),
    ],
)  # fmt: skip
def test_files_that_cannot_be_run(project: Path, text: str, expected: str) -> None:
    (project / "configs" / "my_run.py").write_text(text, encoding="utf-8")
    (problem,) = problems_of("my_run")
    assert problem.startswith(expected)


def test_round_trip_through_json(project: Path) -> None:
    write(project, "my_run", "config.head_options = edict(angles=[1, 2], scale=64.0)", "config.val_targets = ['lfw']",
          "config.dali = False")  # fmt: skip
    config = load_config("my_run")
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert len(again.notes) == 1
    assert pickle.loads(pickle.dumps(config)) == config


def test_from_dict_checks_like_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"rec": "faces", "netwrok": "r50", "lr": 0}, where="runs/a/config.json")
    assert caught.value.problems[0] == "runs/a/config.json: unknown key 'netwrok'. Did you mean 'network'?"
    assert caught.value.problems[1].startswith("runs/a/config.json: lr = 0, but it must be a number, above 0")


def test_config_error_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(ConfigError(["one", "two"])))
    assert (error.problems, str(error)) == (("one", "two"), "one\ntwo")
