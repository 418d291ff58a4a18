"""The fleet on a terminal: `asb top`, its parts as styled lines of a given width. PURE.

Nothing needs colour to be read; what others wrote is made harmless here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.text import Text

from events.harmless import one_line
from projections.format import clock, limit_name, span
from services.queries.fleet import Need, Overview, TaskRow, WindowRow
from services.queries.timeline import EventRow, TaskPage
from services.queries.urgency import WorkerRow
from services.screens.figures import age, amount, bar_cells, money, short, spark
from services.screens.text import clip, pad, pad_left, squeezed

WIDE, BROAD = 76, 100  # columns from which on the second- and third-rank figures are shown
LEVEL_STYLES = {
    "NONE": "green",
    "WARNING": "yellow",
    "SOFT": "dark_orange",
    "HARD": "red",
    "CRITICAL": "bold red",
}
MARKS = {
    "asks": ("?", "bold red"),
    "dead": ("×", "bold red"),
    "busy": ("◌", "dim"),
    "stalled": ("!", "bold red"),
    "limited": ("~", "dark_orange"),
    "unknown": ("¿", "yellow"),
    "paused": ("=", "yellow"),
    "working": ("●", "green"),
    "idle": ("○", "dim"),
    "lost": ("×", "red"),
    "left": ("·", "dim"),
}
FULL = ("HARD", "CRITICAL")  # levels at which hardly anything is let through any more
NEARLY_US = 60_000_000  # what ends within this is not counted down
# What a narrow line leaves out of why a task waits: behind which id, and whom the limit keeps.
BEHIND = re.compile(r"number (\d+) in the queue, behind \S+, which waits for: ")
WHOM = re.compile(r"^(number \d+: )?[^:;]+: (?=needs )")
WINDOW_ROWS = 4  # of those beside the overall ones only such as are near their limit


def head(view: Overview, width: int) -> list[Text]:
    """Level with its reason, money and limits with what is held, burn rate, queue."""
    lines = [_title(view, width)]
    lines += [_window(row, view.now, width) for row in _shown_windows(view)]
    return [*lines, _burn(view, width), _queue_line(view, width)]


def _title(view: Overview, width: int) -> Text:
    line = Text().append("asb ", "bold")
    line.append("live" if view.live else "PAST", "green" if view.live else "bold reverse yellow")
    line.append(f" {clock(view.now)} UTC  ")
    level = "limits OK" if view.level == "NONE" else view.level
    line.append(f" {level} ", f"reverse {LEVEL_STYLES[view.level]}")
    if view.level_reason:
        line.append(f" {view.level_reason}", LEVEL_STYLES[view.level])
    right = f"{view.events:,} events" + (f" · {view.as_of}" if width >= WIDE else "")
    return _ended(line, Text(right, "dim"), width)


def _shown_windows(view: Overview) -> list[WindowRow]:
    overall = [row for row in view.windows if row.scope == "global"]
    overall.sort(key=lambda row: ((row.unit, row.window) != ("money", "day"), -_share(row)))
    near = [row for row in view.windows if row.scope != "global" and row.level != "NONE"]
    return overall[:WINDOW_ROWS] + near[:2]


def _share(row: WindowRow) -> int:
    return 1000 * (row.used + row.held) // max(1, row.limit)


def _label(width: int) -> int:
    return 24 if width >= BROAD else 14 if width >= WIDE else 12


def _window(row: WindowRow, now: int, width: int) -> Text:
    name = f"{row.unit}/{row.window}"
    if row.scope != "global":
        name = limit_name(row.unit, row.window, row.scope)
    label, cells = _label(width), 24 if width >= BROAD else 16 if width >= WIDE else 10
    line = Text(pad(clip(name, label), label) + " ")
    filled, held, free = bar_cells(row.used, row.held, row.limit, cells)
    style = LEVEL_STYLES[row.level]
    line.append("█" * filled, style).append("▒" * held, style).append("·" * free, "dim")
    line.append(f" {pad_left(row.percentage, 6)}", style if row.level != "NONE" else "")
    line.append(f"  {amount(row.unit, row.used)}")
    held = f" +{amount(row.unit, row.held)}" + (" held" if width >= BROAD else "")
    limit = f" of {amount(row.unit, row.limit)}"
    bound = limit + (f" of {amount(row.unit, row.whole)}" if row.whole else "")
    left = age(row.resets_at - now)
    ends = ["rolling"] if not row.resets_at else [f"resets in {left}", f"in {left}"]
    style = "dim"
    if row.full_at and row.level not in FULL:
        ends, style = [f"full in {age(row.full_at - now)}"], "bold red"
    for figures in (held + bound if row.held else bound, bound, limit, ""):
        for words in ends:
            if line.cell_len + len(figures) + len(words) < width:
                return _ended(line.append(figures, "dim"), Text(words, style), width)
    return _fitted(line, width)


def _burn(view: Overview, width: int) -> Text:
    burn = view.burn
    line = Text(pad("burn", _label(width)) + " ", "")
    line.append(f"{money(burn.cost_nanos)}/h", "bold").append(f" · {short(burn.tokens)} tokens/h  ")
    ends = Text("no limit in sight", "dim")
    if burn.ends_at:
        left = burn.ends_at - view.now
        words = "all but used up" if left < NEARLY_US else f"ends in {age(left)}"
        words = words if left > 0 else "used up"
        ends = Text(f"{burn.ends_what} {words}", "bold red")
        if line.cell_len + ends.cell_len >= width:
            ends = Text(words, "bold red")
    room = width - line.cell_len - ends.cell_len - 2
    line.append(spark(burn.spark_tokens, min(30, room) if room >= 6 else 0), "cyan")
    return _ended(line, ends, width)


def _queue_line(view: Overview, width: int) -> Text:
    queue, tasks = view.queue, view.tasks
    line = Text(pad("queue", _label(width)) + " ", "")
    line.append(f"{tasks.waiting:,} waiting", "bold" if tasks.waiting else "")
    line.append(f" · {tasks.running:,} running · {tasks.completed:,} done")
    if tasks.failed:
        line.append(f" · {tasks.failed:,} failed", "red")
    if queue.oldest_task:
        line.append(f"  oldest {age(queue.oldest_wait)}: ", "dim")
        line.append(one_line(_why(queue.oldest_why)), "yellow")
    return _fitted(line, width)


def needs(view: Overview, width: int) -> Text | None:
    """The line that says what waits for a person; None for nothing."""
    if not view.needs:
        return None
    first: Need = view.needs[0]
    line = Text().append(f" ! {len(view.needs)} for you ", "bold reverse red")
    line.append(f" {one_line(first.text)}  ", "bold")
    return _ended(line, Text(first.command, "cyan"), width)


# -- tables ----------------------------------------------------------------------------------------


def workers(view: Overview, width: int) -> list[Text]:
    """A line for each worker, the most urgent first."""
    names = _width((row.worker for row in view.workers), 8, 20 if width >= BROAD else 12)
    agents = _width((_agent(row) for row in view.workers), 6, 16)
    return [_worker(row, names, agents, width) for row in view.workers]


def _agent(row: WorkerRow) -> str:
    return f"{row.agent or 'any'}/{row.model}" if row.model else row.agent or "any"


def _worker(row: WorkerRow, names: int, agents: int, width: int) -> Text:
    mark, style = MARKS[row.word]
    line = Text().append(f"{mark} ", style)
    line.append(f"{pad(squeezed(row.worker, names), names)} ", "bold").append(
        f"{row.word:<8}", style
    )
    if width >= WIDE:
        line.append(f"{pad(clip(_agent(row), agents), agents)} ", "dim")
    line.append(f"{pad(clip(row.evidence, 8), 8)} ", "dim")
    line.append(f"{age(row.sign_age):>5} ", "" if row.word != "stalled" else "bold red")
    line.append(f"{short(row.tokens):>6} " if width >= BROAD else "")
    line.append(f"{money(row.cost_nanos):>8} ")
    if row.attempt > 1:
        line.append(f"{row.attempt}/{row.max_attempts} ", "yellow")
    line.append(one_line(row.title) or row.task)
    if row.running > 1:
        line.append(f" (+{row.running - 1})", "dim")
    return _fitted(line, width)


def queue(view: Overview, width: int) -> list[Text]:
    """A line for each of the first tasks that wait."""
    return [_task(row, width) for row in view.queue.rows]


def running(view: Overview, width: int) -> list[Text]:
    return [_task(row, width) for row in view.running]


def _task(row: TaskRow, width: int) -> Text:
    grey = "dim" if row.status == "blocked" else ""
    styles = {"critical": "bold red", "high": "yellow", "low": "dim"}
    line = Text(style=grey).append(f"{row.priority:<8} ", styles.get(row.priority, ""))
    line.append(f"{age(row.age):>5} ")
    title = one_line(row.title) or row.task
    if width >= WIDE:
        line.append(f"{pad(clip(row.kind or '-', 13), 13)} ", "dim")
        room = max(16, (width - 30) // 2)
        line.append(f"{pad(clip(title, room), room)} ")
        line.append(f"~{short(row.estimate_tokens):<6} " if width >= BROAD else "", "dim")
    else:
        line.append(f"{pad(clip(title, 24), 24)} ")
    line.append(
        one_line(_why(row.why) or f"{row.worker} {row.evidence} {age(row.sign_age)}"), "yellow"
    )
    return _fitted(line, width)


def _why(text: str) -> str:
    return WHOM.sub(r"\1", BEHIND.sub(r"number \1: ", text))


def events(rows: Sequence[EventRow], width: int) -> list[Text]:
    """A line for each event, the newest first."""
    return [_event(row, width) for row in reversed(rows)]


def _event(row: EventRow, width: int) -> Text:
    line = Text().append(f"{clock(row.at)} ", "dim")
    line.append(f"{row.type:<20} ", "bold red" if row.severe else "cyan")
    task = pad(clip(row.task, 20), 20) if width >= WIDE else pad(clip(row.task, 14), 14)
    line.append(f"{task} ", "")
    line.append(one_line(row.words), "")
    return _fitted(line, width)


# -- one task --------------------------------------------------------------------------------------


def task(page: TaskPage, width: int) -> list[Text]:
    """A task with its attempts, its timeline to scale, and its result."""
    lines = [Text(f"TASK {one_line(page.task)}", "bold"), Text()]
    lines += [Text("  " + clip(line, width - 2)) for line in page.text.splitlines()[:8]]
    facts = [
        ("Status", page.status + (f": {page.waiting}" if page.waiting else "")),
        ("Route", f"{page.kind} → {page.route}: {page.reason}" if page.route else ""),
        ("Priority", page.priority + (f", project {page.project}" if page.project else "")),
        ("Cost", f"{page.cost}, {page.tokens:,} tokens"),
    ]
    lines.append(Text())
    for name, value in facts:
        if value:
            lines.append(
                _fitted(Text().append(f"{name:<10}", "dim").append(one_line(value)), width)
            )
    lines += [Text(), *_attempts(page, width), Text(), *_timeline(page, width)]
    if page.result:
        lines += [Text(), Text("Result", "bold")]
        lines += [Text("  " + clip(line, width - 2)) for line in page.result.splitlines()[:200]]
    return lines


def _attempts(page: TaskPage, width: int) -> Iterable[Text]:
    for each in page.attempts:
        took = span(each.ended_at - each.dispatched_at) if each.ended_at else "running"
        words = (
            f"attempt {each.attempt}  {each.worker}  {each.agent or 'any'}/{each.model}  "
            f"{each.outcome or '…'}  {took}  {short(each.tokens)} tokens, {money(each.cost_nanos)}"
        )
        yield _fitted(Text(one_line(words)), width)


def _timeline(page: TaskPage, width: int) -> Iterable[Text]:
    track = 24 if width >= WIDE else 10
    first = page.events[0].at
    whole = max(1, page.events[-1].at - first)
    before = 0
    for row in page.events:
        here = (row.at - first) * (track - 1) // whole
        line = Text().append(f"{'+' + age(row.at - first):>7} ", "dim")
        line.append(" " * before + "─" * (here - before), "dim").append("●", "cyan")
        line.append(" " * (track - here))
        line.append(f"{row.type.removeprefix('task.'):<18}", "bold red" if row.severe else "")
        line.append(one_line(row.words))
        yield _fitted(line, width)
        before = here


# -- all of it -------------------------------------------------------------------------------------


def once(view: Overview, rows: Sequence[EventRow], width: int) -> str:
    """Everything on one screen, as `asb top --once` prints it."""
    need = needs(view, width)
    parts: list[tuple[str, list[Text]]] = [
        ("", head(view, width) + ([need] if need else [])),
        ("WORKERS", workers(view, width)),
        ("RUNNING", running(view, width)),
        ("QUEUE", queue(view, width)[:10]),
        ("EVENTS", events(rows[-10:], width)),
    ]
    lines: list[str] = []
    for title, part in parts:
        if part:
            lines += ["", f"{title} {'─' * max(0, width - len(title) - 1)}"] if title else []
            lines += [line.plain.rstrip() for line in part]
    return "\n".join(lines)


def _width(names: Iterable[str], least: int, limit: int) -> int:
    return min(limit, max([least, *(cell_len(one_line(name)) for name in names)]))


def _fitted(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def _ended(line: Text, right: Text, width: int) -> Text:
    """``line`` with ``right`` at the end of the row, where both fit."""
    room = width - line.cell_len - right.cell_len
    if room < 1:
        return _fitted(line, width)
    return _fitted(line.append(" " * room).append_text(right), width)
