"""Where tests find the public data they may use, and the reason they give where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def needs(*relative: str) -> pytest.MarkDecorator:
    """Skips a test where one of these files or folders is not below SHARED."""
    missing = [name for name in relative if not (SHARED / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"public test data absent: {SHARED}/{', '.join(missing)}")


needs_golden = needs("golden/insightface_layout/train.rec", "golden/im2rec_plain/train.rec", "golden/mxnet_cases")
needs_faces = needs("faces_train")
needs_lfw = needs("lfw/images", "lfw/pairs.txt")
needs_mnist = needs("mnist/train-images-idx3-ubyte.gz")
