"""Text that fits a terminal: cells, folding, tables. What a terminal obeys is made harmless before
it is measured. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size

from events.harmless import one_line

NARROW = 40  # columns: below that a table is not squeezed any further


def clip(text: str, columns: int) -> str:
    """``text`` cut to ``columns`` terminal cells, with … where something is missing."""
    text = one_line(text)
    if columns <= 0 or cell_len(text) <= columns:
        return text
    return set_cell_size(text, columns - 1).rstrip() + "…"


def squeezed(text: str, columns: int) -> str:
    """``text`` cut to ``columns`` cells in its middle: names of a kind differ at their ends."""
    text = one_line(text)
    if cell_len(text) <= columns or columns < 4:
        return clip(text, columns)
    tail = ""
    for char in reversed(text):
        if cell_len(char + tail) > columns // 2:
            break
        tail = char + tail
    return set_cell_size(text, columns - 1 - cell_len(tail)).rstrip() + "…" + tail


def pad(text: str, columns: int) -> str:
    """``text`` filled with blanks to ``columns`` cells; longer text stays as it is."""
    text = one_line(text)
    return text + " " * max(0, columns - cell_len(text))


def pad_left(text: str, columns: int) -> str:
    text = one_line(text)
    return " " * max(0, columns - cell_len(text)) + text


def folded(text: str, columns: int, indent: str = "") -> str:
    """``text`` over as many lines as it takes, each begun with ``indent``, nothing cut off."""
    text = one_line(text)
    if columns <= 0 or cell_len(indent + text) <= columns:
        return indent + text
    room = max(10, columns - cell_len(indent))
    return "\n".join(indent + line for line in _lines(text.split(" "), " ", room))


def _lines(words: Sequence[str], joint: str, room: int) -> Iterator[str]:
    """Broken between words; one that is longer than a line is broken where the line ends."""
    line = ""
    for word in words:
        joined = f"{line}{joint}{word}" if line else word
        if cell_len(joined) <= room:
            line = joined
            continue
        if line:
            yield line
        *whole, line = chop_cells(word, room) or [""]
        yield from whole
    yield line


def records(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A table that is too wide for the terminal: a row's first cell on a line of its own, below
    it the others with their heads, folded."""
    lines: list[str] = []
    for row in rows:
        lines.append(folded(row[0], width))
        cells = zip(heads[1:], row[1:], strict=True)
        pairs = [f"{head.lower()} {cell}" for head, cell in cells if cell]
        lines += [f"  {line}" for line in _lines(pairs, "  ", width - 2)]
    return "\n".join(lines)


def fitted(
    heads: Sequence[str], rows: Sequence[Sequence[str]], columns: int, *, right: str = ""
) -> str:
    """A table where it fits ``columns`` of terminal (0 for no bound), else its records."""
    wide = table(heads, rows, right=right)
    fits = not columns or max(map(cell_len, wide.splitlines())) <= columns
    return wide if fits else records(heads, rows, columns)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", width: int = 0
) -> str:
    """Rows below heads, columns aligned; ``right`` names the heads whose columns are figures.

    ``width`` columns of terminal: the last column is cut to what is left of them.
    """
    figures = set(right.split())
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(heads[i]), *(cell_len(row[i]) for row in rows), 0) if rows else cell_len(head)
        for i, head in enumerate(heads)
    ]
    lines: list[str] = []
    for row in (heads, *rows):
        cells = [
            pad_left(cell, widths[i]) if heads[i] in figures else pad(cell, widths[i])
            for i, cell in enumerate(row[:-1])
        ]
        before = "  ".join(cells)
        last = clip(row[-1], max(10, width - cell_len(before) - 2)) if width else row[-1]
        line = f"{before}  {last}".rstrip() if cells else last
        lines.append(clip(line, width) if width >= NARROW else line)
    return "\n".join(lines)
