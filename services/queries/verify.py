"""The log against everything made of it: folds in several batch sizes, views, reports, audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from events.envelope import Event
from projections import fold, views
from projections.records import RECORDS
from projections.report_views import day_report
from projections.state import State
from services.archive.copying import Archive
from services.audit.check import Audit
from services.client.bus import Bus
from services.queries import metrics
from services.queries.conservation import SumRow, books, report_view, throttle_view, usage_view
from services.runtime.errors import AsbError, CommandRefused
from services.store import rebuild as replaying
from services.store.heartbeat import beats
from services.store.history import folder_of
from services.store.log import after, parse_id

BATCHES = (1, 7, 1000)


REPORTS = 40  # how many of the newest reports are looked at


Advance = Callable[[int], None]


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. ``log_id`` is the first event that differs, "" where all is well."""

    name: str
    good: bool
    value: str
    log_id: str = ""


class KeptViews(msgspec.Struct):
    """The views as they stand in Redis; absent ones are left out, and so are ``spoilt`` ones:
    keys that hold something else, with what that is."""

    throttle: bytes | None
    usage: bytes | None
    reports: dict[str, bytes]
    spoilt: dict[str, str]


def read_views(bus: Bus) -> KeptViews:
    """GET every view; reports of the newest days."""
    days = sorted(bus.state().reports)[-REPORTS:]
    keys = [bus.keys.throttle, bus.keys.token_usage, *(bus.keys.report(day) for day in days)]
    replies = bus.client.pipeline(("GET", key) for key in keys)
    kept = dict(zip(keys, replies, strict=True))
    spoilt = {key: fault for key, body in kept.items() if (fault := first_fault(body))}
    bodies = [None if key in spoilt else body for key, body in kept.items()]
    reports = {day: body for day, body in zip(days, bodies[2:], strict=True) if body}
    return KeptViews(bodies[0], bodies[1], reports, spoilt)


def first_fault(body: Any) -> str:
    """Why this is no view that asb wrote, "" where it is one, or nothing is there."""
    if isinstance(body, CommandRefused):
        return "is of another type: whoever writes this view does so anew with the next change"
    try:
        if body is not None:
            parse_id(msgspec.json.decode(body, type=dict[str, Any])["as_of"])
    except (msgspec.MsgspecError, LookupError, ValueError, AttributeError):
        return "is not a view that asb wrote"
    return ""


def check_folds(bus: Bus, until: str, size: int, live: State, advance: Advance) -> Check:
    """The whole log in turns of ``size``, against the live state."""
    state = State()
    for batch in bus.history.entries(until=until):
        fold_in_turns(state, replaying.decoded(batch), size)
        advance(len(batch))
    same = state.encode() == live.encode()
    name = f"from the start in turns of {size}"
    if same:
        return Check(name, True, "the same")
    place, words = _first_difference(bus, until, size)
    return Check(name, False, f"DIFFERENT: {words or _differing(state, live)}", place)


def fold_in_turns(state: State, events: list[Event], size: int) -> None:
    """Fold in turns of ``size``. On top of a turn of more than one event the next is folded, and
    undone once that turn stands, as by an engine whose second append meets a conflict."""
    for start in range(0, len(events), size):
        _fold_turn(state, events[start : start + size])
        if size > 1:
            _fold_turn(state, events[start + size : start + 2 * size])
            state.commit()
            state.rollback()
        else:
            state.commit()


def _fold_turn(state: State, turn: list[Event]) -> None:
    state.begin()
    for event in turn:
        fold.apply(state, event)


def _first_difference(bus: Bus, until: str, size: int) -> tuple[str, str]:
    """The first event after which two ways to the same place lead to different states."""
    kept = replaying.load_snapshot(bus.client, bus.keys)
    start = State()
    if kept is not None and not after(kept.meta.log_id, until):
        for batch in bus.history.entries(until=kept.meta.log_id):
            fold_in_turns(start, replaying.decoded(batch), 1)
        if start.encode() != kept.encode():
            words = f"the snapshot kept there is not the fold: {_differing(kept, start)}"
            return kept.meta.log_id, words
    else:
        kept = State()
    for batch in bus.history.entries(start.meta.log_id, until):
        events = replaying.decoded(batch)
        for at in range(0, len(events), size):
            fold_in_turns(start, events[at : at + size], size)
            for event in events[at : at + size]:
                fold.apply(kept, event)
            if start.encode() != kept.encode():
                return events[at].log_id, _differing(start, kept)
    return "", ""


def _differing(mine: State, other: State) -> str:
    """Which record differs, in words."""
    for name in RECORDS:
        x, y = getattr(mine, name), getattr(other, name)
        if x == y:
            continue
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            keys = sorted({*map(str, x), *map(str, y)})  # pyright: ignore[reportUnknownArgumentType]
            lost = [k for k in keys if x.get(k) != y.get(k)]  # pyright: ignore[reportUnknownMemberType]
            return f"{name} of {lost[0] if lost else 'some key'}"
        return name
    return "the order or kind of a record"


def archive_checks(bus: Bus) -> list[Check]:
    """The archive, where there is one: its chain, every byte, every entry against the log."""
    try:
        archive = Archive(bus.client, bus.keys, folder_of(bus.settings))
        segments = archive.verify()
    except AsbError as error:
        return (
            [Check("archive", False, str(error).splitlines()[0])] if bus.last_id() != "0-0" else []
        )
    if not segments:
        return []
    number, last = sum(segment.entries for segment in segments), segments[-1].last
    words = f"{len(segments):,} segments, {number:,} entries up to {last}: the same"
    return [Check("archive", True, words)]


class Walk:
    """One walk along the log: the audit, the reports as issued, and each view at its place."""

    def __init__(self, bus: Bus, kept: KeptViews) -> None:
        self._bus, self._views = bus, kept
        self.audit = Audit()
        self._state = State()
        self._reports = 0
        self._checks: list[Check] = []
        self._due: dict[str, list[Callable[[], Check]]] = {}
        self._checks += [Check(key, False, fault) for key, fault in kept.spoilt.items()]
        self._expect(bus.keys.throttle, kept.throttle, _throttle_view)
        self._expect(bus.keys.token_usage, kept.usage, views.token_usage_view)

    def _expect(
        self, key: str, body: bytes | None, render: Callable[[State], dict[str, Any]]
    ) -> None:
        if body is None:
            return
        place = str(msgspec.json.decode(body)["as_of"])

        def look() -> Check:
            wanted = msgspec.json.encode(render(self._state))
            same = wanted == body
            value = f"as of {place}: " + ("the same" if same else "DIFFERENT from the fold")
            return Check(key, same, value, "" if same else place)

        self._due.setdefault(place, []).append(look)

    def run(self, until: str, advance: Advance) -> list[Check]:
        for batch in self._bus.history.entries(until=until):
            for entry, event in replaying.owned(batch):
                if event.type == "report.issued":
                    self._report(event)
                fold.apply(self._state, event)
                self.audit.feed(entry)
                for look in self._due.pop(event.log_id, ()):
                    self._checks.append(look())
            advance(len(batch))
        for place in self._due:
            if place != "0-0" and not after(place, until):
                gone = f"as of {place}, which is not on the log"
                self._checks.append(Check("a view", False, gone, place))
        return [*self._checks, *self._report_checks(), self._audited()]

    def _report(self, event: Event) -> None:
        """A report must say what the fold says at its place, and stand so in Redis."""
        self._reports += 1
        payload = event.data
        key = self._bus.keys.report(payload.date)
        made = msgspec.json.encode(day_report(self._state, payload.date, payload.version))
        if made != msgspec.json.encode(payload.report):
            words = f"version {payload.version} is not what the fold says"
            self._checks.append(Check(key, False, words, event.log_id))
        body = self._views.reports.get(payload.date)
        if body is None:
            return
        shown = msgspec.json.decode(body)
        if shown.get("as_of") != event.log_id:
            return
        del self._views.reports[payload.date]
        wanted = {**payload.report, "event": event.id, "as_of": event.log_id}
        if msgspec.json.encode(wanted) != body:
            words = "what stands in Redis is not the report on the log"
            self._checks.append(Check(key, False, words, event.log_id))

    def _report_checks(self) -> list[Check]:
        left = sorted(self._views.reports)
        if left:
            words = f"of {left[0]} names no report on the log"
            return [Check("reports", False, words, self._bus.keys.report(left[0]))]
        return [Check("reports", True, f"{self._reports:,} issued, the same")]

    def _audited(self) -> Check:
        a = self.audit
        words = ", ".join(f"{n:,} {what}" for what, n in sorted(a.checked.items()))
        if not a.broken:
            return Check("audit", True, f"nothing broken in {words or 'an empty log'}")
        first = a.findings[0]
        words = f"{a.broken:,} broken; the first: {first.rule}: {first.text}"
        return Check("audit", False, words, first.log_id)


def _throttle_view(state: State) -> dict[str, Any]:
    return views.throttle_view(state, state.meta.at)


def conserved(bus: Bus) -> list[SumRow]:
    """The sum of all charges on the raw log against windows, totals, reports, views and metrics."""
    kept = read_views(bus)
    bus.check_beginning("the log's sums cannot be added up")
    audit, rows = Audit(), list[SumRow]()
    pages = list(metrics.expected(beats(bus.client, bus.keys), audit))
    until, folded = bus.last_id(), 0
    due: dict[str, list[Callable[[], SumRow]]] = {}
    if kept.usage is not None:
        usage: dict[str, Any] = msgspec.json.decode(kept.usage)
        due.setdefault(usage["as_of"], []).append(lambda: usage_view(audit, usage))
    if kept.throttle is not None:
        throttle: dict[str, Any] = msgspec.json.decode(kept.throttle)
        due.setdefault(throttle["as_of"], []).append(lambda: throttle_view(audit, throttle))
    for batch in bus.history.entries(until=until):
        for entry, event in replaying.owned(batch):
            audit.feed(entry)
            folded += 1
            rows += [look() for look in due.pop(event.log_id, ())]
            rows += [compare() for place, compare in pages if place == folded]
    state = bus.state(until)
    rows = books(audit, state) + rows
    rows += [SumRow(key, fault, False) for key, fault in kept.spoilt.items()]
    for day, body in sorted(kept.reports.items()):
        report: dict[str, Any] = msgspec.json.decode(body)
        issued = state.reports.get(day)
        if issued is not None and not issued.late_at and issued.log_id == report.get("as_of"):
            rows.append(report_view(audit, day, report))
    if audit.broken:
        first = audit.findings[0]
        rows.append(SumRow("audit", f"{first.log_id} {first.rule}: {first.text}", False))
    return rows
