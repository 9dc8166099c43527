"""A page's structure as its readers' programs see it: headings, links, tables, attributes; no tests."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = ("meta", "img", "br", "wbr", "link")


class Page(HTMLParser):
    """Parses on construction; unbalanced tags are an error.

    Attributes:
        tags: (tag, attributes) in order.
        text: all text of the body, style and script left out.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self._texts: list[str] = []
        self.source = source.read_text() if isinstance(source, Path) else source
        self.feed(self.source)
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if not {"style", "script", "title"} & set(self._open):
            self._texts.append(data)

    def all(self, *names: str) -> list[tuple[str, dict[str, str]]]:
        """Tags of these names, in order."""
        return [entry for entry in self.tags if entry[0] in names]

    def links(self) -> list[str]:
        """Everything that would be fetched or followed."""
        wanted = ("src", "href", "xlink:href", "action", "srcset", "poster", "data", "formaction")
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in wanted]
