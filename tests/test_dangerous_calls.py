"""What no file of the product may call: what runs code from a file, or trusts its names. Read from syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("utils", "sources", "losses", "backbones", "eval", "training", "tools", "benchmarks", "configs")
FILES = [ROOT / "train.py", ROOT / "dataset.py"]
FILES += [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
# Config files in Python are code, and this is the one place that runs them.
MAY_EXECUTE = {"utils/config_python.py"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# calls by dotted name, or by the last part of it where an object is called
NEVER = {
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system", "os.popen", "tarfile.open",
    "shutil.unpack_archive", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "scipy.io.loadmat",
}  # fmt: skip
NEVER_METHODS = {"extractall", "unpack_archive"}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a call's function; "" for anything that is no chain of names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> object:
    """A keyword's constant, None where it is not given or computed."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def problems(tree: ast.Module, name: str) -> list[str]:
    """Every dangerous call, as line and name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            found += [f"{node.lineno}: from {node.module} import {alias.name}" for alias in node.names
                      if alias.name not in ("dumps", "dump", "PicklingError", "UnpicklingError")]  # fmt: skip
        if isinstance(node, ast.ClassDef):
            found += [f"{node.lineno}: a class of {dotted(base)}" for base in node.bases if "Unpickler" in dotted(base)]
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        module, _, last = called.rpartition(".")
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        bad = (
            (called == "torch.load" and keyword(node, "weights_only") is not True)
            or (module in UNPICKLERS and last in ("load", "loads", "Unpickler", "open"))
            or (called in ("np.load", "numpy.load") and keyword(node, "allow_pickle") is not False)
            or called in NEVER
            or method in NEVER_METHODS
            or (called in ("eval", "exec") and name not in MAY_EXECUTE)
            or keyword(node, "shell") is True
        )
        if bad:
            found.append(f"{node.lineno}: {called or method}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_from_a_file_is_run_or_trusted(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    found = problems(ast.parse(path.read_text()), name)
    assert not found, f"{name}: {found}: use utils/pickle_machine.py, utils/torch_files.py or a list"


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)",
        "pickle.loads(data)", "pickle.load(file)", "pickle.Unpickler(file)", "from pickle import loads",
        "class A(pickle.Unpickler): pass", "np.load(path)", "np.load(path, allow_pickle=True)", "yaml.load(text)",
        "eval(text)", "exec(text)", "tarfile.open(path)", "zipfile.ZipFile(path).extractall(folder)", "os.system(line)",
        "subprocess.run(line, shell=True)", "scipy.io.loadmat(path)", "shutil.unpack_archive(path)",
    ],
)  # fmt: skip
def test_each_of_them_is_found(line: str) -> None:
    assert problems(ast.parse(line), "utils/x.py")


@pytest.mark.parametrize(
    "line",
    ["torch.load(path, weights_only=True)", "pickle.dumps(value)", "np.load(path, allow_pickle=False)", "net.eval()",
     "yaml.safe_load(text)", "from pickle import dumps"],
)  # fmt: skip
def test_sound_calls_pass(line: str) -> None:
    assert not problems(ast.parse(line), "utils/x.py")
