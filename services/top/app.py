"""`asb top`: the fleet on one screen, with textual."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from services.client import orders
from services.client.bus import Bus, opened
from services.queries.fleet import Overview
from services.queries.moment import Moment, moment, step
from services.queries.watching import Scene, past, task_at
from services.runtime.errors import AsbError, CommandRefused
from services.runtime.settings import Settings
from services.screens import fleet
from services.screens.text import clip
from services.top.following import Following
from services.top.panel import Asking, Confirming, Line, Panel, ReadingPage

MINUTE_MS = 60_000
# As many as the line holds: what nobody finds without them comes first.
KEYS = (
    *("? help", "q quit", "Tab panel", "⏎ task", "/ filter", "[ ] scrub", "l live", "p pause"),
    *("s submit", "C cancel", "r retry", "@ go to"),
)
HELP = """\
Tab, 1 2 3      workers, queue, events          j k ↑ ↓ g G     move
Enter           a task's whole history          /               filter the panel
z               this panel alone, and back      f               freeze the events, and go on

Any moment of the log
[ ]             an event back, and on           { }             a hundred
< >             a minute back, and on           @               go to a log id or a time
l               live again

p               pause a worker, or let it go on
r               do an ended task again          s               submit a task
C               cancel a task (asks first)
q, Ctrl-C       end

Marks    ! stalled  ~ limited by its provider  = paused  ● working  ○ idle  × lost  · left
         ? its agent asks for permission  ◌ its agent is busy with other work
         ¿ nothing tells what its agent does
Bars     █ used  ▒ held for what runs
Signs    what a worker was last heard of by, and how long ago: started 14s
"""


class Top(App[None]):
    """Shows scenes, and sends what a person orders; decides nothing."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "asb top"
    CSS = """
    Screen { layout: vertical; background: ansi_default; }
    #head, #needs { height: auto; background: ansi_default; }
    #workers { height: 4fr; } #queue { height: 3fr; } #events { height: 3fr; }
    Panel { min-height: 2; background: ansi_default; }
    ReadingPage { background: ansi_default; layout: vertical; }
    Asking, Confirming { background: transparent; layout: vertical; align: left bottom; }
    #question { height: 1; background: ansi_default; }
    #page { height: 1fr; background: ansi_default; } #foot, #keys, #said { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", priority=False),
        Binding("1", "panel('workers')"),
        Binding("2", "panel('queue')"),
        Binding("3", "panel('events')"),
        Binding("slash", "filter"),
        Binding("z", "zoom"),
        Binding("f", "freeze"),
        Binding("p", "pause"),
        Binding("r", "retry"),
        Binding("s", "submit"),
        Binding("C", "cancel"),
        Binding("left_square_bracket", "scrub(-1)"),
        Binding("right_square_bracket", "scrub(1)"),
        Binding("left_curly_bracket", "scrub(-100)"),
        Binding("right_curly_bracket", "scrub(100)"),
        Binding("less_than_sign", "minutes(-1)"),
        Binding("greater_than_sign", "minutes(1)"),
        Binding("at", "moment"),
        Binding("l", "live"),
        Binding("question_mark", "help"),
    ]

    def __init__(self, settings: Settings, at: str | None) -> None:
        super().__init__(ansi_color=True)
        self._settings, self._at = settings, at
        self._scene: Scene | None = None
        self._is_live, self._frozen, self._said = at is None, False, ""
        self._following = Following(
            settings,
            lambda scene, missed: self.call_from_thread(self._news, scene, missed),
            lambda why: self.call_from_thread(self._away, why),
        )

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="needs")
        yield Panel("WORKERS", "workers")
        yield Panel("QUEUE", "queue")
        yield Panel("EVENTS", "events")
        yield Static(id="said")
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.screen_stack[0].query_one("#workers", Panel).focus()
        self._draw_foot()
        self._follow()
        if self._at is not None:
            self._go(self._at)

    @work(thread=True, group="follow")
    def _follow(self) -> None:
        self._following.run()

    def on_unmount(self) -> None:
        self._following.end()

    def on_resize(self) -> None:
        self._draw()

    # -- what is shown -----------------------------------------------------------------------------

    def _news(self, scene: Scene, missed: str) -> None:
        if missed:
            self._say(missed)
        elif self._said.startswith("away"):
            self._say("")
        if self._is_live:
            self._show(scene)

    def _away(self, why: str) -> None:
        self._say(f"away: {why}; waiting for it")

    def _show(self, scene: Scene) -> None:
        self._scene = scene
        self._draw()

    def _draw(self) -> None:
        if self._scene is None:
            return
        view, width = self._scene.overview, self.size.width
        head = fleet.head(view, width)
        if self.size.height < 30:
            head = [*head[:3], *head[-2:]]  # what matters most of the limits comes first
        self._set("#head", Text("\n").join(head))
        self._set("#needs", fleet.needs(view, width) or Text())
        self.screen_stack[0].query_one("#needs", Static).display = bool(view.needs)
        workers = self.screen_stack[0].query_one("#workers", Panel)
        alone = not any(p.display for p in self.screen_stack[0].query(Panel) if p is not workers)
        least = max(2, len(view.workers) + 1)
        workers.styles.max_height = None if alone else least  # no rows are left empty
        workers.set_lines(_workers(view, width))
        self.screen_stack[0].query_one("#queue", Panel).set_lines(_queue(view, width))
        if not self._frozen:
            rows = self._scene.events
            texts = fleet.events(rows, width)
            lines = [
                Line(row.log_id, text, row.task, row.worker)
                for row, text in zip(reversed(rows), texts, strict=True)
            ]
            self.screen_stack[0].query_one("#events", Panel).set_lines(lines)
        self._draw_foot()

    def _set(self, name: str, text: Text) -> None:
        part = self.screen_stack[0].query_one(name, Static)
        if part.content != text:
            part.update(text)

    def _draw_foot(self) -> None:
        keys = KEYS[0]
        for key in KEYS[1:]:
            if len(keys) + len(key) + 2 > self.size.width:
                break
            keys += f"  {key}"
        self._set("#keys", Text(keys, "dim", no_wrap=True, overflow="ellipsis"))
        said = self.screen_stack[0].query_one("#said", Static)
        said.display = bool(self._said)
        self._set("#said", Text(self._said, "bold", no_wrap=True, overflow="ellipsis"))

    def _say(self, text: str) -> None:
        self._said = clip(text, 0)
        self._draw_foot()

    # -- panels ------------------------------------------------------------------------------------

    @property
    def _panel(self) -> Panel:
        focused = self.screen_stack[0].focused
        return (
            focused
            if isinstance(focused, Panel)
            else self.screen_stack[0].query_one("#workers", Panel)
        )

    def action_panel(self, name: str) -> None:
        self.screen_stack[0].query_one(f"#{name}", Panel).focus()

    def action_zoom(self) -> None:
        panels, chosen = list(self.screen_stack[0].query(Panel)), self._panel
        alone = all(not p.display for p in panels if p is not chosen)
        for panel in panels:
            panel.display = alone or panel is chosen
        self._draw()

    def action_freeze(self) -> None:
        self._frozen = not self._frozen
        self._say("events are frozen; f goes on" if self._frozen else "")
        self._draw()

    def action_filter(self) -> None:
        panel = self._panel
        self._ask("filter (empty: all)", panel.set_filter)

    def action_help(self) -> None:
        self.push_screen(ReadingPage(Text(HELP), "q: back"))

    def _ask(self, question: str, then: Callable[[str], object]) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                then(text)

        self.push_screen(Asking(question), answered)

    def on_panel_opened(self, event: Panel.Opened) -> None:
        if event.line.task:
            self._open(event.line.task)
        else:
            self.push_screen(ReadingPage(event.line.text.copy(), "q: back"))

    @work(thread=True, exclusive=True, group="task")
    def _open(self, task: str) -> None:
        scene = self._scene
        at = Moment(scene.overview.as_of) if scene is not None and not self._is_live else None
        page = self._asked(lambda bus: task_at(bus, task, at))
        if page is not None:
            lines = fleet.task(page, self.size.width - 2)
            foot = "r: do it again  C: cancel  j k: scroll  q: back"
            reading = ReadingPage(Text("\n").join(lines), foot, "rC")
            self.call_from_thread(self.push_screen, reading, partial(self._act_on, task))

    def _act_on(self, task: str, key: str | None) -> None:
        if key == "r":
            self._order(lambda bus: orders.retry(bus, task))
        elif key == "C":
            self._confirm_cancel(task)

    # -- any moment --------------------------------------------------------------------------------

    def action_scrub(self, by: int) -> None:
        if self._scene is not None:
            log_id = self._scene.overview.as_of
            self._past(lambda bus: Moment(step(bus, log_id, by)))

    def action_minutes(self, by: int) -> None:
        if self._scene is not None:
            at = self._scene.overview.now // 1000 + by * MINUTE_MS
            self._past(lambda bus: Moment(f"{at}-0", min(at * 1000, bus.now())))

    def action_moment(self) -> None:
        self._ask("go to (a log id, a time in UTC, or -15m)", self._go)

    def action_live(self) -> None:
        self._is_live = True
        self._say("live again, with the next picture")

    def _go(self, text: str) -> None:
        if text:
            self._past(lambda bus: moment(text, bus.now()))

    def _past(self, chosen: Callable[[Bus], Moment]) -> None:
        self._is_live = False
        self._fold(chosen)

    @work(thread=True, exclusive=True, group="past")
    def _fold(self, chosen: Callable[[Bus], Moment]) -> None:
        scene = self._asked(lambda bus: past(bus, chosen(bus)))
        if scene is not None and not self._is_live:
            self.call_from_thread(self._say, "a past moment: [ ] < > move, l is live again")
            self.call_from_thread(self._show, scene)

    # -- orders ------------------------------------------------------------------------------------

    def action_pause(self) -> None:
        line = self._panel.line
        if line is None or not line.worker or self._scene is None:
            self._say("p pauses the worker under the cursor; here is none")
            return
        name = line.worker
        rows = [row for row in self._scene.overview.workers if row.worker == name]
        paused = bool(rows) and rows[0].word == "paused"
        self._order(lambda bus: orders.pause(bus, name, resume=paused))

    def action_retry(self) -> None:
        line = self._panel.line
        if line is not None and line.task:
            task = line.task
            self._order(lambda bus: orders.retry(bus, task))

    def action_submit(self) -> None:
        self._ask("submit a task", self._submit)

    def _submit(self, text: str) -> None:
        if text:
            self._order(lambda bus: orders.submit(bus, {"text": text}))

    def action_cancel(self) -> None:
        line = self._panel.line
        if line is not None and line.task:
            self._confirm_cancel(line.task)

    def _confirm_cancel(self, task: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._order(lambda bus: orders.cancel(bus, task, "by hand, in asb top"))

        self.push_screen(Confirming(f"Cancel {clip(task, 30)}?"), answered)

    def _order(self, order: Callable[[Bus], orders.Reply]) -> None:
        self._send(order)

    @work(thread=True, group="order")
    def _send(self, order: Callable[[Bus], orders.Reply]) -> None:
        reply = self._asked(order)
        if reply is not None:
            task = f" ({reply.task})" if reply.task else ""
            self.call_from_thread(self._say, f"{'' if reply.ok else 'refused: '}{reply.text}{task}")

    def _asked(self, question: Callable[[Bus], Any]) -> Any:
        """The answer of the bus; None where there is none, and it is said why."""
        try:
            with opened(self._settings) as bus:
                return question(bus)
        except (AsbError, CommandRefused) as error:
            self.call_from_thread(self._say, str(error).splitlines()[0])
            return None


def _workers(view: Overview, width: int) -> list[Line]:
    rows = zip(view.workers, fleet.workers(view, width), strict=True)
    return [Line(row.worker, text, row.task, row.worker) for row, text in rows]


def _queue(view: Overview, width: int) -> list[Line]:
    rows = zip(view.queue.rows, fleet.queue(view, width), strict=True)
    return [Line(row.task, text, row.task, row.worker) for row, text in rows]


def run(settings: Settings, at: str | None) -> None:
    """Show it until the person ends it. ``at``: the moment to begin with, None for now."""
    Top(settings, at).run()
