"""A list of lines with a cursor, and pages to read: what `asb top` is put together from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static


class Line(NamedTuple):
    """A line of a panel. ``key`` stays the same while its text changes; ``task`` and ``worker`` are
    what it is about, "" for none."""

    key: str
    text: Text
    task: str = ""
    worker: str = ""


class Panel(Widget, can_focus=True):
    """Lines below a title; the cursor stays on its line while others come and go. Before it is
    moved it stays on the first line."""

    def __init__(self, title: str, id: str) -> None:
        super().__init__(id=id)
        self._title, self._lines, self._all = title, list[Line](), list[Line]()
        self._cursor, self._top, self._moved = 0, 0, False
        self._note = self._filter = ""

    class Opened(Message):
        """Enter on a line."""

        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    @property
    def line(self) -> Line | None:
        """The line under the cursor."""
        return self._lines[self._cursor] if self._lines else None

    def set_lines(self, lines: Sequence[Line], note: str = "") -> None:
        """Show these lines; drawn only where something changed."""
        if list(lines) == self._all and note == self._note:
            return
        self._all, self._note = list(lines), note
        self._refill()

    def set_filter(self, text: str) -> None:
        """Show only the lines that hold ``text``."""
        self._filter = text.casefold()
        self._refill()

    def _refill(self) -> None:
        key = self.line.key if self.line is not None and self._moved else ""
        wanted = self._filter
        self._lines = [x for x in self._all if not wanted or wanted in x.text.plain.casefold()]
        keys = [line.key for line in self._lines]
        at = keys.index(key) if key in keys else min(self._cursor, len(keys) - 1)
        self._cursor = max(0, at if self._moved else 0)
        self.refresh()

    def move(self, by: int) -> None:
        self._moved = True
        self._cursor = max(0, min(len(self._lines) - 1, self._cursor + by))
        self.refresh()

    def home(self) -> None:
        """Back to the first line, and there it stays."""
        self._moved, self._cursor = False, 0
        self.refresh()

    def render(self) -> Text:
        width, room = self.size.width, max(0, self.size.height - 1)
        self._top = min(self._top, self._cursor, max(0, len(self._lines) - room))
        self._top = max(self._top, self._cursor - room + 1, 0)
        shown = self._lines[self._top : self._top + room]
        text = self._heading(width, len(shown))
        for number, line in enumerate(shown, self._top):
            row = line.text.copy()
            row.truncate(width, overflow="ellipsis", pad=True)
            if number == self._cursor and self.has_focus:
                row = Text(row.plain, "reverse")  # whatever its colours: one bar
            text.append("\n").append_text(row)
        return text

    def _heading(self, width: int, shown: int) -> Text:
        style = "bold" if self.has_focus else "dim"
        number = f" {shown} of {len(self._lines)}" if shown < len(self._lines) else ""
        filtered = f" /{self._filter}" if self._filter else ""
        head = (
            f"{'▌' if self.has_focus else ' '}{self._title}{number}{filtered} {self._note}".rstrip()
        )
        text = Text(no_wrap=True, overflow="ellipsis").append(f"{head} ", style)
        text.append("─" * max(0, width - len(text.plain)), "dim")
        text.truncate(width)
        return text

    def on_key(self, event: events.Key) -> None:
        page = max(1, self.size.height - 2)
        moves = {"j": 1, "down": 1, "k": -1, "up": -1, "pagedown": page, "pageup": -page}
        if event.key in moves:
            self.move(moves[event.key])
        elif event.key in ("home", "g"):
            self.home()
        elif event.key in ("end", "G"):
            self.move(len(self._lines))
        elif event.key == "enter" and self.line is not None:
            self.post_message(self.Opened(self.line))
        else:
            return
        event.stop()

    def on_click(self, event: events.Click) -> None:
        number = self._top + event.y - 1
        if 0 <= number < len(self._lines):
            self.move(number - self._cursor)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


class ReadingPage(ModalScreen[str]):
    """A page to read; ends with the key that was pressed, where that acts on it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss('')"),
        Binding("j,down", "scroll(1)"),
        Binding("k,up", "scroll(-1)"),
        Binding("pagedown,space", "scroll(10)"),
        Binding("pageup", "scroll(-10)"),
    ]

    def __init__(self, text: Text, foot: str, acts: str = "") -> None:
        super().__init__()
        self._text, self._foot, self._acts = text, foot, acts

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield Static(self._text)
        yield Static(Text(self._foot, "dim"), id="foot")

    def action_scroll(self, by: int) -> None:
        self.query_one("#page", VerticalScroll).scroll_relative(y=by, animate=False)

    def on_key(self, event: events.Key) -> None:
        if event.character and event.character in self._acts:
            event.stop()
            self.dismiss(event.character)


class Asking(ModalScreen[str | None]):
    """A line to type: a filter, a moment, a task. Escape gives nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up")]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        yield Static(Text(self._question, "bold"), id="question")
        yield Input(self._value)

    def action_give_up(self) -> None:
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class Confirming(ModalScreen[bool]):
    """Yes or no, before something is undone by it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "dismiss(True)"),
        Binding("n,escape,q", "dismiss(False)"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._question}  y: yes   n: no", "bold reverse"), id="question")
