"""What a model file says of itself, and the refusal of preprocessing that is not ours; opens no file."""

from __future__ import annotations

from collections.abc import Mapping

from utils.images import FACE

# The entries that this project's exports write, and its readers look for.
COLOR_ORDER, MEAN, STD = "color_order", "mean", "std"
IMAGE_SIZE = "image_size"
INPUT, NORMALIZED = "input", "embeddings_normalized"
NETWORK, EMBEDDING_SIZE, IN_CHANNELS = "network", "embedding_size", "in_channels"
TRUE, FALSE = "true", "false"


class EmbedderError(ValueError):
    """A model that cannot be loaded or used as an embedder; the text says what was found and what is needed."""


def require_our_pixels(where: str, metadata: Mapping[str, str]) -> None:
    """Refuses a model that wants other pixels than RGB, (x - 127.5) / 127.5.

    A file that says nothing is taken as arcface_torch's exports are: the same pixels.

    Args:
        where: the file, for the error.
        metadata: its entries.

    Raises:
        EmbedderError: the entry that differs, and what images are given as.
    """
    expected = {COLOR_ORDER: "RGB", MEAN: FACE.mean, STD: FACE.std}
    for key, wanted in expected.items():
        if key not in metadata:
            continue
        got = metadata[key]
        same = got.upper() == wanted if isinstance(wanted, str) else _numbers(got) == {wanted}
        if not same:
            raise EmbedderError(f"{where}: its metadata says {key} = {got}; images are given as {key} = {wanted}")


def whole_number(where: str, metadata: Mapping[str, str], key: str) -> int | None:
    """An entry as a number from 1 to 65,536; None where it is absent.

    Raises:
        EmbedderError: anything else.
    """
    if key not in metadata:
        return None
    text = metadata[key]
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65536):
        raise EmbedderError(f"{where}: its metadata says {key} = {text[:40]!r}; a number from 1 to 65536 is needed")
    return int(text)


def _numbers(text: str) -> set[float]:
    try:
        return {float(word) for word in text.strip("[]() ").replace(",", " ").split()}
    except (ValueError, RecursionError):
        return set()
