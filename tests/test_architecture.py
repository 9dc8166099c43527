"""Who may import whom, what may run at import, how long a file may be: read from the syntax trees, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 250
MAX_TRAIN_LINES = 220
# what each room may import of ours, besides itself
ALLOWED: dict[str, set[str]] = {
    "utils": set(),
    "backbones": {"utils"},
    "sources": {"utils"},
    "losses": {"utils"},
    "dataset": {"sources", "utils"},
    "eval": {"backbones", "sources", "utils"},  # sources: what file names of pedestrian sets mean, .mat lists
    "training": {"dataset", "backbones", "losses", "eval", "utils"},
    "train": {"training", "dataset", "backbones", "losses", "eval", "utils"},
    "tools": {"utils", "backbones", "sources", "losses", "dataset", "eval", "training", "configs"},
    "benchmarks": {"utils", "backbones", "sources", "losses", "dataset", "eval", "training", "configs", "tools"},
    "configs": set(),
}
ROOMS = set(ALLOWED)
OPTIONAL_PACKAGES = {"torchvision", "mxnet", "faiss", "timm", "pyarrow"}
STARTERS = {"init_process_group", "set_start_method", "set_num_threads", "manual_seed", "spawn", "parse_args"}
STARTERS |= {"Process", "open", "print"}


def product_files() -> list[Path]:
    """Every Python file of the product."""
    found = [ROOT / "train.py", ROOT / "dataset.py"]
    for room in sorted(ROOMS - {"train", "dataset"}):
        found += sorted((ROOT / room).rglob("*.py"))
    return [path for path in found if path.exists()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full dotted names of everything imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runs_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the file is imported: not inside functions, not under `if __name__ == "__main__"`."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and any(word in ast.dump(node.test) for word in ("__name__", "TYPE_CHECKING")):
            continue
        yield node
        pending += ast.iter_child_nodes(node)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def defines_a_head(path: Path) -> bool:
    """Whether a losses/ file has a class with the methods that make a head."""
    methods = {"loss", "non_target", "context"}
    return room_of(path) == "losses" and any(
        isinstance(node, ast.ClassDef)
        and methods & {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        for node in ast.walk(parsed(path))
    )


FILES = product_files()
every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


@every_file
def test_imports_only_the_rooms_below(path: Path) -> None:
    room = room_of(path)
    ours = {name.split(".")[0] for name in imports(parsed(path))} & (ROOMS | {"tests"})
    forbidden = ours - ALLOWED[room] - {room}
    assert not forbidden, f"{name_of(path)} imports {sorted(forbidden)}; {room} may import {sorted(ALLOWED[room])}"
    if room == "configs":
        others = {name.split(".")[0] for name in imports(parsed(path))} - {"easydict", "configs", "__future__"}
        assert not others, f"{name_of(path)} imports {sorted(others)}; a config imports easydict or another config"


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "backbones"], ids=name_of)
def test_backbones_know_torch_only(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(parsed(path))}
    foreign = tops & {"numpy", "cv2", "sklearn", "easydict", "onnx", "tensorboard", "matplotlib", "safetensors"}
    assert not foreign, f"{name_of(path)} imports {sorted(foreign)}; backbones know torch only"


@pytest.mark.parametrize("path", [path for path in FILES if defines_a_head(path)], ids=name_of)
def test_heads_do_not_know_of_ranks_or_configs(path: Path) -> None:
    bad = [name for name in imports(parsed(path)) if name.startswith(("torch.distributed", "utils.config"))]
    attributes = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr == "distributed" and getattr(node.value, "id", "") == "torch"
    ]
    assert not bad, f"{name_of(path)} imports {bad}; a head imports torch and its base"
    assert not attributes, f"{name_of(path)} uses torch.distributed in lines {attributes}; that is the engine's work"


@every_file
def test_optional_packages_stay_inside_functions(path: Path) -> None:
    tops = {name.split(".")[0] for node in runs_at_import(parsed(path)) for name in imports(node)}
    assert not tops & OPTIONAL_PACKAGES, f"{name_of(path)} imports {sorted(tops & OPTIONAL_PACKAGES)} at module level"


@every_file
def test_nothing_starts_at_import(path: Path) -> None:
    for node in runs_at_import(parsed(path)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in STARTERS, f"{name_of(path)}:{node.lineno} runs {called}() at import"
        assert not isinstance(node, ast.While), f"{name_of(path)} loops at import"


@every_file
def test_first_line_says_what_lives_here(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    assert lines, f"{name_of(path)} is empty"
    assert lines[0].startswith(('"""', 'r"""', "#")), f"{name_of(path)} does not begin with what lives there"


@every_file
def test_files_stay_short(path: Path) -> None:
    limit = MAX_TRAIN_LINES if name_of(path) == "train.py" else MAX_LINES
    count = len(path.read_text().splitlines())
    assert count <= limit, f"{name_of(path)} has {count} lines; the limit is {limit}"


def test_nobody_imports_train() -> None:
    for path in FILES:
        assert "train" not in {name.split(".")[0] for name in imports(parsed(path))}, f"{name_of(path)} imports train"


def test_oracles_know_no_product_code() -> None:
    for path in sorted((ROOT / "tests" / "oracles").glob("*.py")):
        ours = {name.split(".")[0] for name in imports(parsed(path))} & ROOMS
        assert not ours, f"{name_of(path)} imports {sorted(ours)}: an oracle that shares code proves nothing"
