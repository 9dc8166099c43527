"""docs/tutorial.md from its first command to its last, on photographs made from public faces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data import SHARED, needs, needs_faces
from tests.docs.console import ROOT, form, make_workspace, matches, read_steps, run_step
from tests.docs.photographs import write_photographs
from utils.command_line import DONE, FOUND

PAGE = ROOT / "docs" / "tutorial.md"
DETECTOR = "detector/face_detection_yunet_2026may.onnx"
# People and photographs here; the page's own numbers come from more of them, which its form does not show.
PEOPLE = {"test": 20, "train": 12, "images": 6}


@needs_faces
@needs(DETECTOR)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_way_runs_as_the_page_shows_it(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "clone")
    write_photographs(SHARED / "faces_train", workspace / "photos", **PEOPLE)
    shutil.copy(SHARED / DETECTOR, workspace / "detector.onnx")
    steps = read_steps(PAGE)
    assert len(steps) >= 10
    for step in steps:
        done = run_step(step, workspace)
        where = f"{PAGE.name}:{step.line}: {step.command} printed\n{done.stdout}"
        # 1: photographs without a face, which the page speaks of
        assert done.returncode in (DONE, FOUND), f"{where}\n{done.stderr}"
        printed = done.stdout.splitlines()
        forms = f"shown   {[form(line) for line in step.shown]}\nprinted {[form(line) for line in printed]}"
        assert matches(step.shown, printed), f"{where}\n{forms}"
