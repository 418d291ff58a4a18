"""delegator: teach it by examples, check it, ask it why; and a correction of one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from events.commands.operators import TaughtExample
from events.envelope import words_of
from projections.format import first_line
from projections.state import State
from services import assembly
from services.cli import options
from services.cli.terminal import note, say, say_json
from services.client.bus import Bus
from services.client.follow import Answers
from services.delegator import evaluate
from services.delegator.classify import Delegation, Delegator
from services.delegator.overlay import TaughtWeights, shipped_name, teach
from services.runtime.errors import AsbError, Refused
from services.screens.text import clip

app = typer.Typer(
    help="Which kind of work a text asks for: teach it, check it, ask why.",
)
MISSES = 10

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Tab-separated; line 1 names kind and text.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


@app.command()
def learn(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Tab-separated examples; line 1 names kind and text."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Teach the bus by examples.

    On top of what it knows; it says what that changes.

    Without FILE it learns again from the examples that stand on the bus: those whose words were
    forgotten are dropped.
    """
    new = [TaughtExample(task.kind, task.text) for task in _tasks(file)] if file is not None else []
    with options.opened() as bus:
        teach_bus(bus, new, reason)


def teach_bus(bus: Bus, new: Sequence[TaughtExample], reason: str) -> None:
    """Learn from all examples on the bus and ``new`` ones, put the overlay on the log, and say what
    changed. Exit code 1 where it is refused."""
    state = bus.state()
    known, forgotten = examples_on(bus, state)
    corrected = {f"task {example.task}" for example in new if example.task}
    texts = [pair for name, pair in known.items() if name not in corrected]
    texts += [(e.kind, e.text or _text_of(bus, e.task)) for e in new]
    taught = teach(list(dict.fromkeys(texts)), _overlay(bus, state))
    answers = Answers(bus)
    data: dict[str, object] = {
        "overlay": taught.overlay,
        "shipped": shipped_name(),
        "after": state.meta.overlay.place,
        "rows": len(texts),
        "examples": msgspec.to_builtins(tuple(new)),
        "forgotten": forgotten,
        "reason": reason,
    }
    answers.expect(bus.send("delegator.learnt", data), "what the delegator learnt")
    if answers.refused(note):
        raise typer.Exit(1)
    _say_taught(taught, len(texts), len(forgotten))


def examples_on(bus: Bus, state: State) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """The examples whose words still stand on the log, by id, and the ids of the others."""
    taught = state.taught
    events = bus.events_at([example.place for example in taught.values() if not example.task])
    known: dict[str, tuple[str, str]] = {}
    for name, example in taught.items():
        if example.task:
            text = _text_of(bus, example.task)
        else:
            event = events.get(example.place)
            texts = words_of(event).get("texts", ()) if event is not None else ()
            text = texts[example.number] if example.number < len(texts) else ""
        if text:
            known[name] = (example.kind, text)
    return known, [name for name in taught if name not in known]


def _text_of(bus: Bus, task: str) -> str:
    """The prompt of a task; "" where its words are gone."""
    first = bus.client.call("LINDEX", bus.keys.task_index(task), 0)
    events = bus.events_at([first.decode()]) if isinstance(first, bytes) else {}
    return next((words_of(event).get("text", "") for event in events.values()), "")


def _say_taught(taught: TaughtWeights, count: int, forgotten: int) -> None:
    say(f"{count:,} examples: {taught.before:,} had the right kind, {taught.after:,} have it now")
    for kind, text, taken in taught.missed[:MISSES]:
        say(f"  still {taken}, not {kind}: {clip(first_line(text), 70)}")
    if len(taught.missed) > MISSES:
        say(f"  … and {len(taught.missed) - MISSES:,} more")
    say(
        f"{taught.moved:,} of {taught.judged:,} tasks that were never learnt from take another"
        f" route; {len(taught.overlay):,} features weigh otherwise"
    )
    if forgotten:
        say(f"{forgotten:,} examples are dropped: their words were forgotten")


@app.command()
def check(file: File) -> None:
    """How often it is right on labelled tasks."""
    tasks = _tasks(file)
    outcomes = evaluate.evaluate(tasks, _delegator())
    right = sum(o.delegation.kind == o.task.kind for o in outcomes)
    say(evaluate.report(outcomes))
    say(f"\nright kinds: {right:,} of {len(outcomes):,}")


@app.command()
def why(
    text: Annotated[list[str], typer.Argument(metavar="TEXT…", help="What a task would say.")],
    as_json: AsJson = False,
) -> None:
    """Which route a text would take, and which words decide it."""
    delegation = _delegator().delegate(" ".join(text))
    if as_json:
        say_json(msgspec.to_builtins(delegation))
    else:
        say(explanation(delegation))


def explanation(delegation: Delegation) -> str:
    """A decision as a person reads it."""
    lines = [
        f"{delegation.kind} → {delegation.agent}/{delegation.model}",
        f"  {delegation.reason}",
        "  candidates, in points:",
    ]
    lines += [f"    {c.score:>5}  {c.kind} ({c.agent}/{c.model})" for c in delegation.candidates]
    sure = "close: [delegator] when_unsure decides" if delegation.close else "clear enough"
    lines.append(f"  {delegation.margin} points before the best other route: {sure}")
    return "\n".join(lines)


def correction(bus: Bus, task: str, kind: str) -> None:
    """`asb task ID --was KIND`: what the task really was, learnt at once."""
    if not _text_of(bus, task):
        raise Refused(f"the text of task {task} is gone", hint="only a known text teaches anything")
    teach_bus(bus, [TaughtExample(kind, task=task)], f"task {task} was {kind}")


def _tasks(file: Path) -> list[evaluate.LabelledText]:
    try:
        return evaluate.read_labelled(file)
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read examples: {error}", hint="line 1: kind<TAB>text") from error


def _delegator() -> Delegator:
    """The delegator as the bus has it; where no bus runs, as it ships, and that is said."""
    plain = assembly.delegator_of(options.settings())
    try:
        with options.opened() as bus:
            overlay = _overlay(bus, bus.state())
    except AsbError:
        note("no bus runs here: without what one would have been taught")
        return plain
    return plain.with_overlay(overlay) if overlay else plain


def _overlay(bus: Bus, state: State) -> dict[str, str]:
    """The weights that the bus was taught; none where nothing was, or their words are gone."""
    events = bus.events_at([place]) if (place := state.meta.overlay.place) else {}
    overlays: list[dict[str, str]] = [words_of(e).get("overlay", {}) for e in events.values()]
    return overlays[0] if overlays else {}
