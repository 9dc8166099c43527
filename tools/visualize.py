"""`python -m tools.visualize RUN ...`: pictures of classification runs from what they saved. Trains nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.classification_metrics import ClassificationError
from eval.report_input import ReportError
from tools.run_pictures.curves import draw_head, draw_training
from tools.run_pictures.embeddings import draw_animation, draw_embeddings
from tools.run_pictures.similarities import draw_confusion, draw_histograms
from tools.run_pictures.view import PictureError, RunView, read_view
from utils.command_line import DONE, FOUND, Outcome, command_parser, run_command

# name of the picture -> (file, what draws it for one run)
PICTURES: dict[str, tuple[str, Callable[[RunView, Path], None]]] = {
    "embeddings": ("embeddings.png", draw_embeddings),
    "confusion": ("confusion.png", draw_confusion),
    "histograms": ("histograms.png", draw_histograms),
    "head": ("head.png", draw_head),
    "animation": ("embeddings.gif", draw_animation),
}
CURVES, CURVES_FILE = "curves", "curves.png"
EXAMPLES = (
    "python -m tools.visualize work_dirs/digits_2d",
    "python -m tools.visualize work_dirs/mnist_softmax work_dirs/mnist_svsoftmax --only curves,confusion --out both",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where a picture that was asked for by name cannot be drawn."""
    names = ", ".join([*PICTURES, CURVES])
    parser = command_parser(
        "python -m tools.visualize",
        "Draw classification runs: embeddings with their prototypes (2-D, 3-D, else a projection), cosines between "
        "classes, histograms of cosines and sample margins, logits of the head, curves of all runs in one figure, and "
        "an animation of 2-D embeddings over training.",
        EXAMPLES,
    )
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="folder that train.py wrote")
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated, of: {names}; default: whatever a run gives")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN_DIR/pictures, curves in the first run's")
    options = parser.parse_args(arguments)
    return run_command(options, lambda: _run(options), (PictureError, ClassificationError, ReportError, OSError))


def _run(options: argparse.Namespace) -> Outcome:
    wanted = options.only.split(",") if options.only else [*PICTURES, CURVES]
    unknown = [name for name in wanted if name not in PICTURES and name != CURVES]
    if unknown:
        raise PictureError(
            f"--only {','.join(unknown)}: there is no such picture; there are {', '.join(PICTURES)}, {CURVES}"
        )
    views = _views(options.run_dirs)
    drawn: list[Path] = []
    left: list[str] = []
    for view in views:
        folder = _folder(options, view, is_only=len(views) == 1)
        for name in [name for name in PICTURES if name in wanted]:
            file, draw = PICTURES[name]
            try:
                draw(view, folder / file)
                drawn.append(folder / file)
            except (PictureError, ClassificationError) as error:
                left.append(f"{view.label}: no {name}: {error}")
    if CURVES in wanted:
        folder = options.out or views[0].folder / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        draw_training(views, folder / CURVES_FILE)
        drawn.append(folder / CURVES_FILE)
    words = [str(path) for path in drawn] + left
    status = FOUND if left and (options.only or not drawn) else DONE
    return Outcome("\n".join(words), {"pictures": drawn, "not_drawn": left}, status)


def _views(run_dirs: Sequence[Path]) -> list[RunView]:
    """All runs under names that tell them apart: those of their folders, with the parent's where two are alike."""
    names = [run_dir.resolve().name for run_dir in run_dirs]
    if len(set(names)) < len(names):
        names = [f"{run_dir.resolve().parent.name}/{run_dir.resolve().name}" for run_dir in run_dirs]
    if len(set(names)) < len(names):
        raise PictureError("a run is named twice, or two lie in folders of the same names: name each run once")
    return [read_view(run_dir, name) for run_dir, name in zip(run_dirs, names, strict=True)]


def _folder(options: argparse.Namespace, view: RunView, *, is_only: bool) -> Path:
    """Where a run's pictures go; several runs in one folder get one each."""
    folder: Path = view.folder / "pictures"
    if options.out is not None:
        folder = options.out if is_only else options.out / view.label.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
