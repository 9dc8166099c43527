"""Configs in YAML and JSON: what a value means, where an error stands, and what a hostile file cannot do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones import BACKBONES
from losses import HEADS, REGULARIZERS
from utils.config import CONFIGS, Config, ConfigError, convert, find_config, load_config, main
from utils.config_text import MAX_BYTES, read_text_config
from utils.config_yaml import MAX_VALUES

RUNS = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "base"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def values_of(folder: Path, text: str, name: str = "run.yaml") -> dict[str, Any]:
    return read_text_config(write(folder, name, text), name).values


def problem_of(folder: Path, text: str, name: str = "run.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, name, text))
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_every_config_of_ours_survives_conversion(project: Path, name: str, kind: str) -> None:
    registries = {"heads": HEADS, "backbones": BACKBONES, "regularizers": REGULARIZERS}
    config = load_config(name, **registries)  # type: ignore[arg-type]
    text = convert(config, kind)
    again = load_config(write(project, f"{name}.{kind}", text), **registries)  # type: ignore[arg-type]
    assert again == replace(config, source=f"{name}.{kind}")
    assert text.count("\n") < 30, "only what differs from the defaults"


def test_values_that_look_like_others_survive_conversion(project: Path) -> None:
    config = Config(rec="1e-4", output="null", val_dir="off", val_targets=("12:30", "None", 'ä "\\ #:'), lr=1e-05)
    for kind in ("yaml", "json"):
        again = load_config(write(project, f"odd.{kind}", convert(config, kind)))
        assert replace(again, name="", source="") == config


def test_a_run_is_repeated_from_its_own_config(project: Path) -> None:
    config = load_config("quickstart", ["seed=7", "resume=True", "head_options.margin=0.5"])
    written = json.dumps(config.to_dict(), indent=1)
    path = write(project / "work_dirs", "config.json", written)
    again = load_config(path, ["output=elsewhere"])
    source = "work_dirs/config.json"
    assert again == replace(config, output="elsewhere", source=source, resume=False, notes=())
    older = {key: value for key, value in config.to_dict().items() if key != "bad_records"}
    assert load_config(write(project, "older.json", json.dumps(older))).bad_records == "stop"


def test_a_runs_config_needs_no_base(project: Path) -> None:
    write(project, "base.yaml", "lr: 9.0\n")
    path = write(project, "config.json", json.dumps(Config(rec="faces", name="x", output="o").to_dict()))
    assert load_config(path).lr == 0.1
    assert load_config(path).name == "x"
    assert load_config(write(project, "run.json", '{"rec": "faces"}')).lr == 9.0


def test_yaml_means_what_it_shows(project: Path) -> None:
    text = """
    rec: 2024-01-01         # no date
    output: 010             # no octal number
    val_dir: off            # no truth
    val_targets: [no, on, '1e-4', 12:30]
    lr: 1e-4                # a number, in every version
    seed: 0x10
    resume: True
    head_lr: None
    num_classes: ~
    weight_decay: .5
    head_options: {margin: 1E-1, scale: 30}
    regularizers:
    """
    got = read_text_config(write(project, "run.yaml", text), "run.yaml", lambda key: key in ("rec", "output"))
    assert got.values == {
        "rec": "2024-01-01", "output": "010", "val_dir": "off", "val_targets": ["no", "on", "1e-4", "12:30"],
        "lr": 1e-4, "seed": 16, "resume": True, "head_lr": None, "num_classes": None, "weight_decay": 0.5,
        "head_options": {"margin": 0.1, "scale": 30}, "regularizers": None,
    }  # fmt: skip
    assert got.lines["rec"] == 2
    assert got.lines["regularizers"] == 13
    assert values_of(project, 'a: "true"\nb: !!str 1\nc: &x [1, 2]\nd: *x\ne: |\n  text\n') == {
        "a": "true", "b": "1", "c": [1, 2], "d": [1, 2], "e": "text\n",
    }  # fmt: skip
    assert load_config(write(project, "number.yaml", "rec: 7\noutput: 2024\n")).output == "2024"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rec: x\nlr: '0.1'\n", "run.yaml:2: lr = '0.1', but it must be a number"),
        ("rec: x\n\nresume: yes\n", "run.yaml:3: resume = 'yes', but it must be True or False"),
        ("rec: x\nsample_rat: 1\n", "run.yaml:2: unknown key 'sample_rat'. Did you mean 'sample_rate'?"),
        ("rec: x\nlr: 1\nlr: 2\n", "run.yaml:3: 'lr' is set twice, first in line 2."),
        ("rec: x\nhead_options: {a: 1, a: 2}\n", "run.yaml:2: 'a' is set twice, first in line 2."),
        ("rec: x\n\tlr: 1\n", "run.yaml:2: this is not YAML: "),
        ("rec: [x\n", "run.yaml:2: this is not YAML: "),
        ("- rec\n", "run.yaml:1: a config is a mapping, lines of KEY: VALUE."),
        ("a: 1\n---\nb: 2\n", "run.yaml:2: this is not YAML: expected a single document in the stream: but found "),
        ("? [a]\n: 1\n", "run.yaml:1: a key is a name"),
        ("x: &a {lr: 1}\n<<: *a\n", "run.yaml:2: << is not read here: build on another file with base: FILE."),
        ("rec: x\nlr: !!python/object/apply:os.system [id]\n", "the tag '!!python/object/apply:os.system' is refused"),
        ("rec: !!binary aGk=\n", "run.yaml:1: the tag '!!binary' is refused: a config holds plain values."),
        ("rec: !env HOME\n", "run.yaml:1: the tag '!env' is refused"),
        ("!!python/name:os.system rec: x\n", "is refused"),
        ("lr: !!float x\n", "run.yaml:1: 'x' is no !!float."),
        ("a: *nowhere\n", "run.yaml:1: this is not YAML: found undefined alias 'nowhere'."),
        ("a: &a [*a]\n", "run.yaml:1: values are nested too deeply."),
        ("seed: " + "9" * 5000 + "\n", "run.yaml:1: "),
        ("seed: 99999999999999999999\n", "run.yaml:1: seed = 99999999999999999999, but it must be a whole number"),
        ("lr: 1e999\n", "run.yaml:1: lr = inf, but it must be a number"),
        ("a: " + "[" * 50_000, "run.yaml:1: this is not YAML: values are nested too deeply"),
        ("- " * 50_000, "run.yaml: values are nested too deeply."),
        ("a: \x01\n", "run.yaml: this is not YAML: special characters are not allowed."),
        ("# " + "x" * MAX_BYTES, f"run.yaml: larger than {MAX_BYTES >> 10} KiB"),
    ],
)  # fmt: skip
def test_yaml_errors(project: Path, text: str, said: str) -> None:
    assert said in problem_of(project, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "rec": "x",\n "lr": "a"\n}', "run.json:3: lr = 'a', but it must be a number"),
        ('{\n "rec": "x",\n "lr": 1,\n "lr": 2\n}', "run.json:4: 'lr' is set twice, first in line 3."),
        ('{"head_options": {"a": 1, "a": 1}}', "run.json:1: 'a' is set twice in one object."),
        ('{"rec": "x",\n "lr": 1,}', "run.json:2: this is not JSON: "),
        ('{"rec": "x"\n "lr": 1}', "run.json:2: this is not JSON: expected , or }."),
        ('{"rec": "x"} x', "run.json:1: text after the closing }."),
        ("[1]", "run.json:1: this is not JSON: a config is an object"),
        ("", "run.json:1: this is not JSON: a config is an object"),
        ("{1: 2}", "run.json:1: expected a key in double quotes, got 1."),
        ('{"lr": NaN}', "run.json:1: NaN is no JSON, and no key takes it."),
        ('{"seed": ' + "9" * 5000 + "}", "run.json:1: "),
        ('{"lr": ' + "[" * 100_000, "run.json:1: "),
        ('{"rec": "x", "lr": ' + "[" * 30 + "]" * 30 + "}", "run.json:1: lr: values are nested too deeply."),
    ],
)  # fmt: skip
def test_json_errors(project: Path, text: str, said: str) -> None:
    assert said in problem_of(project, text, "run.json")


def test_a_file_that_is_not_text(project: Path) -> None:
    (project / "run.yaml").write_bytes(b"rec: \xff\xfe")
    with pytest.raises(ConfigError, match=r"^run\.yaml: not UTF-8 text: invalid start byte at byte 5\.$"):
        load_config("run.yaml")
    assert values_of(project, "\ufeffrec: x\n") == {"rec": "x"}, "a byte order mark is no character"


def test_few_lines_cannot_stand_for_billions_of_values(project: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert f"more than {MAX_VALUES} values, aliases counted each time" in problem_of(project, "\n".join(lines))


def test_what_a_file_builds_on(project: Path) -> None:
    write(project, "below.yaml", "rec: faces\nlr: 0.5\nhead: cosface\nhead_options: {margin: 0.4}\n")
    config = load_config(write(project, "mine.yml", "base: below.yaml\nlr: 0.25\n"))
    assert (config.rec, config.lr, config.head, config.head_options) == ("faces", 0.25, "cosface", {"margin": 0.4})
    assert load_config(write(project, "third.json", '{"base": "mine.yml", "seed": 3}')).lr == 0.25
    for name in ("quickstart", "configs/quickstart", "configs/quickstart.py"):
        ours = load_config(write(project, "ours.yaml", f"base: {name}\nlr: 0.3\n"))
        assert (ours.rec, ours.lr) == ("data/quickstart", 0.3)
    write(project, "base.yaml", "rec: elsewhere\nseed: 5\n")
    assert load_config(write(project, "plain.yaml", "lr: 0.1\n")).seed == 5
    assert load_config(project / "mine.yml").rec == "faces"
    assert load_config("base.yaml").rec == "elsewhere"


def test_a_data_file_never_runs_python_beside_it(project: Path) -> None:
    write(project, "base.py", "raise SystemExit('base.py was run')\n")
    write(project, "other.py", "raise SystemExit('other.py was run')\n")
    assert load_config(write(project, "run.yaml", "rec: faces\n")).rec == "faces"
    said = problem_of(project, "rec: faces\nbase: other.py\n")
    assert said.startswith("run.yaml:2: base = 'other.py' is Python, which is run, and this file promises to be data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: nowhere.yaml\n", "run.yaml:1: base = 'nowhere.yaml': there is no "),
        ("base: 3\n", "run.yaml:1: base = 3, but it must be the path"),
        ('base: "a\\0b.yaml"\n', "run.yaml:1: base = 'a\\x00b.yaml': there is no "),
        (f"base: {'x' * 5000}.yaml\n", "there is no "),
        ("base: run.yaml\n", "run.yaml: a circle, or more than 16 files on each other: run.yaml -> run.yaml."),
    ],
)
def test_bases_that_are_none(project: Path, text: str, said: str) -> None:
    assert said in problem_of(project, text)


def test_names_find_all_formats_and_two_of_one_name_are_told_apart(project: Path) -> None:
    path = write(project / "configs", "mine.yaml", "rec: x\n")
    for spelling in ("mine", "mine.yaml", "configs/mine", "configs/mine.yaml", "configs.mine"):
        assert find_config(spelling) == path.resolve()
    write(project / "configs", "mine.py", "config = {'rec': 'y'}\n")
    with pytest.raises(ConfigError, match=r"^mine: .*/configs holds mine\.py and mine\.yaml\. Say which"):
        find_config("mine")
    assert find_config("mine.yaml") == path.resolve()
    for nothing in ("", ".", "..", "\0", "x" * 5000):
        with pytest.raises(ConfigError, match="there is no such config"):
            find_config(nothing)


def test_the_command_line_converts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--to", "yaml", "quickstart", "seed=7"]) == 0
    text = capsys.readouterr().out
    assert 'rec: "data/quickstart"\n' in text
    assert load_config(write(project, "quickstart.yaml", text)).seed == 7
    assert main(["--to", "json", "quickstart", "lr=x"]) == 2
    assert "command line: lr = 'x'" in capsys.readouterr().err
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("# Configuration keys")
