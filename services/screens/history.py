"""One task's history as people read it: facts, and its events on a bar to scale. PURE."""

from __future__ import annotations

from events.envelope import text_of
from events.money import dollars
from events.task import Charge
from projections import views
from projections.format import count, span
from services.client.story import Story, result_of
from services.queries.describe import describe
from services.queries.history import compared, denials, newest_worktree, own_cost
from services.screens.status import RULE
from services.screens.text import clip, folded

TRACK = 32  # columns of the time bar


RESULT_LINES = 40
NAME_CELLS = 12  # columns of the names of facts
REASON = 2_000  # characters of a reason


def history_text(story: Story, columns: int = 0) -> str:
    """The history as a person reads it."""
    facts = [line for name, value in _facts(story) for line in _fact(name, value, columns)]
    lines = [f"TASK {story.task}", RULE, *_text_lines(story), "", *facts, ""]
    lines += _track_lines(story, columns)
    result = result_of(story.events)
    if isinstance(result, str) and result.strip():
        result_lines = result.strip().splitlines()
        lines += ["", "Result:", *(f"  {line}" for line in result_lines[:RESULT_LINES])]
        if len(result_lines) > RESULT_LINES:
            lines.append(
                f"  … {len(result_lines) - RESULT_LINES:,} more lines: --json has them all"
            )
    return "\n".join(clip(line, columns) for line in lines)


def _text_lines(story: Story) -> list[str]:
    submitted = story.last("task.submitted")
    if submitted is None:
        return []
    text_lines = text_of(submitted, "text").strip().splitlines()
    more = [f"  … {len(text_lines) - 8:,} more lines"] if len(text_lines) > 8 else []
    return [*(f"  {line}" for line in text_lines[:8]), *more]


def _fact(name: str, value: str, columns: int) -> list[str]:
    """A fact behind its name, folded below itself."""
    head = f"{name}:" if name else ""
    first, *others = folded(value, columns, " " * NAME_CELLS).splitlines()
    return [f"{head:<{NAME_CELLS}}{first[NAME_CELLS:]}".rstrip(), *others]


Row = tuple[str, str]  # a fact's name and value


def _facts(story: Story) -> list[Row]:
    return [*_standing(story), *_asked(story), *_route(story), *_run(story)]


def _standing(story: Story) -> list[Row]:
    rows: list[Row] = [("Status", story.status)]
    failed = story.last("task.failed")
    if failed is not None and story.status != "completed":
        rows.append(("Reason", text_of(failed, "error")[:REASON]))
    if story.waiting:
        rows.append(("Waits", story.waiting))
    return rows


def _asked(story: Story) -> list[Row]:
    submitted = story.last("task.submitted")
    if submitted is None:
        return []
    asked = submitted.data
    given = {
        "Priority": asked.priority,
        "Project": asked.project,
        "Retry of": asked.retry_of,
        "After": ", ".join(asked.after),
    }
    return [(name, value) for name, value in given.items() if value]


def _route(story: Story) -> list[Row]:
    delegated = story.last("task.delegated")
    if delegated is None:
        return []
    route = delegated.data
    estimate = f"estimate {route.estimate_tokens:,} tokens"
    why = text_of(delegated, "reason")
    rows: list[Row] = [
        ("Kind", f"{route.kind} ({route.complexity}), {estimate}"),
        ("Route", f"{route.agent} with {route.model}: {why}"),
    ]
    if escalated := story.last("task.escalated"):
        rows.append(("Escalated", f"{escalated.data.model}: {escalated.data.reason}"))
    if route.candidates:
        each = [f"{c.kind} {c.score} ({c.agent}/{c.model})" for c in route.candidates]
        rows.append(("Candidates", ", ".join(each)))
    return rows


def _run(story: Story) -> list[Row]:
    submitted, dispatched = story.last("task.submitted"), story.last("task.dispatched")
    if dispatched is None:
        return []
    run = dispatched.data
    tries = f" of {submitted.data.max_attempts}" if submitted is not None else ""
    held = f"{run.hold_tokens:,} tokens and {dollars(run.hold_nanos)} held"
    rows: list[Row] = [("Worker", f"{run.worker}, attempt {run.attempt}{tries}, {held}")]
    if run.why:
        rows.append(("", run.why))
    rows += _worktree(story)
    rows += _spent(story.charged, own_cost(story))
    rows += [("Meters", line) for line in _meters(story)]
    number, tools = denials(story)
    if number:
        rows.append(("Refused", f"{count(number, 'permission')}: {', '.join(tools)}"))
    return rows


def _worktree(story: Story) -> list[Row]:
    tree = newest_worktree(story)
    if tree is None:
        return []
    after = {None: "", "": "; removed, nothing was in it"}.get(tree.kept, f"; kept: {tree.kept}")
    return [("Worktree", f"{tree.path} on {tree.branch}{after}")]


def _meters(story: Story) -> list[str]:
    """Who told of what attempts used, and how far the others are from what is charged."""
    lines: list[str] = []
    for attempt, (meter, tokens, others) in compared(story).items():
        each = [f"{name} {there:,} ({there - tokens:+,})" for name, there in others.items()]
        lines.append(f"attempt {attempt}: {meter} {tokens:,}; {', '.join(each)}")
    return lines


def _spent(charge: Charge, own: int | None) -> list[Row]:
    parts = [
        f"{name} {getattr(charge, name.replace(' ', '_') + '_tokens'):,}"
        for name in ("input", "output", "cache read", "cache write")
        if getattr(charge, name.replace(" ", "_") + "_tokens")
    ]
    inside = f" ({', '.join(parts)})" if parts else ""
    guess = ""
    if charge.estimated and charge.flag:
        guess = f"; estimated: what was reported cannot be read ({charge.flag})"
    elif charge.estimated:
        guess = (
            "; estimated: no usage was reported (a command tells it by ASB_USAGE_FILE or --format)"
        )
    beside = f" (its own figure: {dollars(own)})" if own is not None and own != charge.nanos else ""
    rows = [
        ("Tokens", f"{charge.tokens:,}{inside}{guess}"),
        ("Cost", dollars(charge.nanos) + beside),
    ]
    if charge.disputed_tokens or charge.disputed_nanos:
        money = dollars(charge.disputed_nanos)
        rows.append(
            ("Disputed", f"{charge.disputed_tokens:,} tokens, {money}, not charged: asb correct")
        )
    return rows


def _track_lines(story: Story, columns: int) -> list[str]:
    events = story.events
    if not events:
        return []
    start, whole = events[0].at, max(1, events[-1].at - events[0].at)
    track = TRACK if columns == 0 or columns >= 90 else 12
    scale = f"{span(whole)}, to scale" if len(events) > 1 else "just taken in"
    lines = [f"History ({views.iso(start)}, {scale}):"]
    before = 0
    for event in events:
        here = (event.at - start) * (track - 1) // whole if len(events) > 1 else 0
        bar = " " * before + "─" * (here - before) + "●"
        lines.append(
            f"  {_offset(event.at - start):>11}  {bar:<{track}}  "
            f"{event.type.removeprefix('task.'):<17}{describe(event)}"
        )
        before = here
    return lines


def _offset(micros: int) -> str:
    """``+0.004 s``: thousandths while they mean something."""
    if micros < 60_000_000:
        return f"+{micros // 1_000_000}.{micros % 1_000_000 // 1000:03d} s"
    return f"+{span(micros)}"
