"""The table of docs/heads.md: what each head supports and needs, read from the registry. Draws nothing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from losses import HEADS, Head, build_head

BEGIN = "<!-- begin: written by python -m tools.draw_heads --page -->"
END = "<!-- end -->"
_COLUMNS = (
    "head", "margin warm-up", "`interclass_filter`", "options by class", "`class_counts`", "running statistics",
    "learned", "walk over the classes",
)  # fmt: skip
_NUM_CLASSES = 4


def names_of(heads: Mapping[str, type[Head]] = HEADS) -> list[str]:
    """Names to show, in the registry's order: an alias is the same head."""
    first: dict[type[Head], str] = {}
    for name, head in heads.items():
        first.setdefault(head, name)
    return list(first.values())


def support_table() -> str:
    """Markdown, one row per head."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(name) for name in names_of())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_table(page: Path) -> None:
    """Replaces what lies between the markers of the page.

    Raises:
        ValueError: the page lacks a marker.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or END not in text.split(BEGIN)[1]:
        raise ValueError(f"{page} lacks the lines {BEGIN!r} and {END!r}, between which the table is written")
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n{support_table()}\n{END}{after}", encoding="utf-8")


def needs_class_counts(name: str) -> bool:
    """Whether the head refuses to be set up without the images per class."""
    try:
        build_head(name).setup(_NUM_CLASSES, None)
    except ValueError as error:
        return "class_counts" in str(error)
    return False


def _row(name: str) -> tuple[str, ...]:
    head = build_head(name)
    counts = torch.ones(_NUM_CLASSES, dtype=torch.long) if needs_class_counts(name) else None
    head.setup(_NUM_CLASSES, counts)
    learned = [key for key, _ in head.named_parameters()]
    running = [] if type(head).update is Head.update else [key for key in head.state_dict() if key not in learned]
    return (
        f"[`{name}`](#{name})",
        "yes" if head.supports_margin_warmup else "no",
        _filter_support(name, head),
        _listed(_options_by_class(type(head))),
        "needed" if counts is not None else "",
        _listed(running),
        _listed(learned),
        _walk(head),
    )


def _filter_support(name: str, head: Head) -> str:
    if head.is_on_cosines:
        return "yes"
    options: dict[str, Any] = {"normalized": True}
    can_normalise = set(options) <= set(inspect.signature(type(head)).parameters)
    return "with `normalized=True`" if can_normalise and build_head(name, **options).is_on_cosines else "no"


def _options_by_class(head: type[Head]) -> list[str]:
    return [key for key, value in inspect.signature(head).parameters.items() if "PerLabel" in str(value.annotation)]


def _walk(head: Head) -> str:
    """What the engine does for this head beyond a plain head's one product forward and two backward."""
    words = []
    if head.sub_centers > 1:
        words.append(f"{head.sub_centers} prototypes a class")
    if head.needs_prototype_similarity:
        words.append("second product, nothing kept")
    if head.differentiates_hardest:
        words.append("gradient of `hardest`")
    if head.reduction == "sum":
        words.append("plain sum")
    if type(head).non_target is not Head.non_target:
        words.append("inner autograd")
    return ", ".join(words) or "plain"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
