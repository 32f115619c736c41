"""A page as a tree, for the tests that read it."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "link", "img", "source", "br", "hr", "input"}


class _Builder(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tree, self.open = ElementTree.TreeBuilder(), []

    def handle_starttag(self, tag, attributes):
        self.tree.start(tag, {name: value or "" for name, value in attributes})
        if tag in VOID:
            self.tree.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self.tree.end(tag)

    def handle_data(self, data):
        if self.open:
            self.tree.data(data)


def parse(page: str) -> ElementTree.Element:
    """The html element. Fails where a tag is not closed."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert builder.open == []
    return builder.tree.close()


def text(element) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def section(tree, name):
    return next(element for element in tree.iter("section") if element.get("id") == name)


def table(element) -> list[list[str]]:
    """The rows of the first table, its head first; a cell's second line after a |."""
    rows = []
    for row in next(element.iter("table")).iter("tr"):
        rows.append([_cell(cell) for cell in row if cell.tag in ("th", "td")])
    return rows


def _cell(cell) -> str:
    below = cell.find("small")
    if below is None:
        return text(cell)
    return f"{cell.text.strip()}|{text(below)}"
