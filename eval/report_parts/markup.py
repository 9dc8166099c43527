"""Text -> markup: sections, tables, folded parts, words for numbers. Knows no runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

SHOWN_HASH = 16  # characters of a SHA-256 in a table; its title holds all 64


class Markup(str):
    """Text that is markup already; every other str is escaped on its way into the page."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A headed part of the page; one without a body is left out.

    Attributes:
        title: also its name in the navigation.
        body: markup.
        short: for the navigation, where the title is long.
    """

    title: str
    body: str
    short: str = ""

    @property
    def anchor(self) -> str:
        """Its id."""
        return re.sub(r"[^a-z0-9]+", "-", (self.short or self.title).lower()).strip("-")

    def render(self) -> str:
        """The section with its heading."""
        return (
            f'<section aria-labelledby="{self.anchor}"><h2 id="{self.anchor}" tabindex="-1">{escape(self.title)}</h2>'
            f"{self.body}</section>\n"
        )


def cell(text: str) -> str:
    """The text, escaped unless it is markup."""
    return text if isinstance(text, Markup) else escape(text)


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, is_wrapped: bool = False) -> str:
    """A table in a box that scrolls by itself; the first cell of a row names it.

    Args:
        caption: shown above.
        header: of the columns.
        rows: texts or Markup, as many as the header.
        is_wrapped: long cells take several lines instead of making the table wider.
    """
    if not rows:
        return ""
    columns = "".join(f'<th scope="col">{cell(title)}</th>' for title in header)
    lines = "".join(
        f'<tr><th scope="row">{cell(row[0])}</th>{"".join(f"<td>{cell(value)}</td>" for value in row[1:])}</tr>\n'
        for row in rows
    )
    kind = ' class="wrap"' if is_wrapped else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table{kind}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>\n{lines}</tbody></table></div>\n"
    )


def key_values(caption: str, record: Mapping[str, Any]) -> str:
    """A table of names and values, long ones wrapped."""
    rows = [(str(key), words(value)) for key, value in record.items()]
    return table(caption, ("name", "value"), rows, is_wrapped=True)


def folded(summary: str, body: str) -> str:
    """A part that is opened by the reader; nothing where the body is empty."""
    return f"<details><summary>{cell(summary)}</summary>{body}</details>\n" if body else ""


def missing(text: str, command: str = "") -> str:
    """The line that stands where a part would be: why it is not there, and what makes it."""
    made = f" Made by: <code>{escape(command)}</code>" if command else ""
    return f'<p class="missing">{escape(text)}{made}</p>\n'


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: value, name, and a line of detail each."""
    shown = "".join(
        f"<div><dt>{cell(name)}</dt><dd><strong>{cell(value)}</strong> <span>{cell(detail)}</span></dd></div>"
        for value, name, detail in entries
    )
    return f'<dl class="tiles">{shown}</dl>\n' if shown else ""


def words(value: Any) -> str:
    """A JSON value as people write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def digest(value: Any) -> str:
    """A hash, shortened; all of it is in its title."""
    text = escape(str(value or ""))
    return Markup(f'<code title="{text}">{text[:SHOWN_HASH]}</code>') if text else "n/a"


def percent(value: Any, digits: int = 2) -> str:
    """A rate as per cent."""
    return f"{value:.{digits}%}" if isinstance(value, (int, float)) and not isinstance(value, bool) else "n/a"
