"""To-do lists in Markdown: the open items of ``- [ ] text``, nested ones too. PURE."""

from __future__ import annotations

import re

import msgspec

ITEM = re.compile(r"(\s*)(?:[-*+]|\d{1,9}[.)])\s+(?:\[([ xX])\]\s+)?(\S.*)")


FENCE = re.compile(r"\s*(```|~~~)")


class TodoItem(msgspec.Struct):
    """One item of a list. ``open`` is None where it has no box. ``line`` counts from 1."""

    line: int
    indent: int
    open: bool | None
    lines: list[str]
    parents: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.lines[0]

    @property
    def text(self) -> str:
        """What is to be done, with what it is a part of."""
        own = "\n".join(self.lines).rstrip()
        return f"{own}\n\nPart of: {' / '.join(self.parents)}" if self.parents else own


def open_items(text: str) -> list[TodoItem]:
    """The unchecked items, in order. An item keeps the lines indented below it, and names the
    items it is nested in. Code blocks hold no items."""
    return sorted((item for item in _items(text) if item.open), key=lambda item: item.line)


def _items(text: str) -> list[TodoItem]:
    items: list[TodoItem] = []
    above: list[TodoItem] = []  # the item being read, and those it is nested in
    fenced = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.expandtabs(4).rstrip()
        indent = len(line) - len(line.lstrip())
        inside, fenced = fenced, fenced ^ bool(FENCE.match(line))
        match = None if inside else ITEM.fullmatch(line)
        if line and not inside:
            above = [item for item in above if item.indent < indent]
        if match is not None:
            parents = tuple(item.title for item in above)
            box = None if match[2] is None else match[2] == " "
            above.append(TodoItem(number, indent, box, [match[3]], parents))
            items.append(above[-1])
        elif above:
            above[-1].lines.append(line[above[-1].indent + 2 :])
    return items
