"""The first five minutes: data, 2-rank training, verification, ONNX. Only calls the project's own command lines."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from utils.config import Config, load_config

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs every step and prints what came of it; a failing step ends it with that step's exit status."""
    os.chdir(ROOT)
    started = time.monotonic()
    config = load_config("configs/quickstart")
    target = config.val_targets[0]
    try:
        _call("1/4 render a small set of faces", "-m", "tools.synthetic_faces", config.rec)
        _call(
            "2/4 train with SV-Softmax on two processes (interrupt and run again: it continues)",
            *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("train.py", "configs/quickstart", "resume=True"),
        )
        verification = ("-m", "eval.verification", "--model", config.output or "", "--data", config.rec)
        # The last weights, not the best ones: those were chosen by this very set.
        _call("3/4 verify the trained network", *verification, "--targets", target, "--checkpoint", "last")
        _call(
            "4/4 export to ONNX and compare with PyTorch",
            "-m",
            "tools.export_onnx",
            config.output or "",
            "--checkpoint",
            "last",
        )
    except KeyboardInterrupt:
        print("\nquickstart was interrupted; `make quickstart` goes on from the last checkpoint", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(f"\nquickstart stopped: `{shlex.join(error.cmd)}` ended with status {error.returncode}", file=sys.stderr)
        return int(error.returncode) or 1
    _summary(config, target, time.monotonic() - started)
    return 0


def _call(title: str, *arguments: str) -> None:
    print(f"\n== {title} ==\n$ {shlex.join(('python', *arguments))}", flush=True)
    # torchrun would say on every start that it sets one thread per process; train.py shares the cores out itself.
    environment = {"OMP_NUM_THREADS": "1", **os.environ} if "torch.distributed.run" in arguments else None
    with subprocess.Popen([sys.executable, *arguments], env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it has got the Ctrl-C too, and saves; killing it now would lose that
            raise
    if status:
        raise subprocess.CalledProcessError(status, ["python", *arguments])


def _untrained_accuracy(run: Path, target: str) -> float:
    """Accuracy of the first verification, which train.py does before its first step."""
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "verification" and entry["dataset"] == target and entry["protocol"] == "insightface":
            return float(entry["accuracy"])
    raise SystemExit(f"{run / 'metrics.jsonl'}: no verification of {target} before training; remove {run}, run again")


def _summary(config: Config, target: str, seconds: float) -> None:
    run = Path(config.output or "")
    before = _untrained_accuracy(run, target)
    results = json.loads((run / "verification" / "results.json").read_text())
    after = results["targets"][target]["protocols"]["insightface"]["accuracy"]
    print(
        f"\n== Done in {seconds / 60:.1f} minutes ==\n"
        f"Verification accuracy on {target}, identities that are not in training: {before:.2%} before training, "
        f"{after:.2%} after.\n"
        f"Run folder       {run}   (weights best.pt and model.pt, report.html, metrics.jsonl, checkpoints)\n"
        f"Plots and JSON   {run / 'verification'}\n"
        f"ONNX model       {next(iter(sorted(run.glob('*.onnx'))), run)}\n"
        "Next, on your own photographs (one folder per person, faces aligned to 112x112):\n"
        "  .venv/bin/python -m tools.records pack PHOTOS data/mine && .venv/bin/python train.py "
        "configs/faces_small_svsoftmax rec=data/mine 'val_targets=()' output=work_dirs/mine\n"
    )


if __name__ == "__main__":
    sys.exit(main())
