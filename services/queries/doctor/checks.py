"""The checks of `asb doctor`, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from events.policy import PolicyChanged
from projections import clock as clock_fold
from projections import flags
from projections.format import count
from projections.records import ALIVE
from projections.shares import share_of_limit
from projections.state import State
from services.client.bus import Bus
from services.client.dead_letters import dropped_count
from services.queries import clock
from services.queries.disputes import disputed_line, disputes
from services.queries.doctor import log
from services.queries.doctor.archive import archive_rows
from services.queries.doctor.findings import Check, Look
from services.queries.doctor.forgetting import forgotten_rows
from services.queries.doctor.programs import program_rows
from services.queries.doctor.services import service_rows
from services.queries.figures import names_text, running_count, waiting_count
from services.queries.metrics import metrics_row, page_row
from services.queries.missing import missing_names
from services.queries.notices import NAMED as NOTICED
from services.queries.notices import unpriced
from services.queries.shares import share_rows
from services.queries.stalled import UNTAKEN_S, silent
from services.queries.verify import conserved
from services.runtime import initial_policy
from services.runtime.urls import redacted
from services.snapshots.projector import due_after
from services.store.data_folder import record_of
from services.store.health import FactRow, durability
from services.store.heartbeat import beats
from services.store.server_table import facts_table
from services.store.snapshot_record import decode_record

SNAPSHOT_LATE = 3  # times the tail after which the next snapshot is due
NAMED = 5  # models a row names
BROKEN = "a sum is not conserved: `asb replay --verify` names the first event that differs"


def _server(look: Look) -> Iterator[FactRow]:
    yield ("redis", redacted(look.bus.client.url), "ok", "")
    yield from facts_table(look.facts)
    kept = durability(look.facts)
    yield ("durability", kept.promise, "ok" if kept.holds else "bad", kept.hint)


def _program(look: Look) -> Iterator[FactRow]:
    """Which program the embedded server is, and which ones were passed over, each with why."""
    settings = look.bus.settings
    record = None if settings.redis_url else record_of(settings.data_dir)
    if record is not None:
        yield ("server", record.shown, "ok", "")
        for reason in record.passed_over:
            yield ("passed over", reason, "ok", "")


def _log(look: Look) -> Iterator[FactRow]:
    client, keys = look.bus.client, look.bus.keys
    memory = client.call("MEMORY", "USAGE", keys.log, "SAMPLES", 100) or 0
    length = client.call("XLEN", keys.log)
    yield ("log", f"{count(length, 'event')}, about {memory / 2**20:,.1f} MiB", "ok", "")
    _ = look.state  # a log that cannot be folded is this check's to tell


def _snapshot(look: Look) -> Iterator[FactRow]:
    client, keys, state = look.bus.client, look.bus.keys, look.state
    record = decode_record(client.call("GET", keys.snapshot_record))
    there = record.log_id and client.call("XRANGE", keys.log, record.log_id, record.log_id)
    behind = record.tail(state.meta.events) if there else state.meta.events
    tail = f"a start folds {count(behind, 'event')}"
    if record.failures:
        tries = count(record.failures, "time")
        hint = "it is tried again every few minutes by the service `snapshots`; mend what it names"
        yield ("snapshots", f"it has failed {tries}: {record.error}; {tail}", "bad", hint)
        return
    words = tail if there else f"none yet; {tail}"
    bound = SNAPSHOT_LATE * due_after(look.bus.settings.snapshots.every_events, len(state.tasks))
    hint = "the service `snapshots` should have written one: its errors stand on standard error"
    yield ("snapshots", words, "warn" if behind > bound else "ok", hint)


def _services(look: Look) -> Iterator[FactRow]:
    running = beats(look.bus.client, look.bus.keys)
    yield from service_rows(running)
    yield from metrics_row(running, wanted=look.bus.settings.metrics.enabled)
    yield from page_row(running, wanted=look.bus.settings.web.enabled)
    if "intake" in missing_names(running):
        return
    if not silent(look.bus, look.state):
        yield ("engine", "it takes in what comes, and nothing waits at the intake", "ok", "")
        return
    hint = "what holds it up stands on the standard error of `asb up` or `asb service`"
    said = f"it runs, and entries wait at the intake: for {UNTAKEN_S:g} s none was taken in"
    yield ("engine", said, "bad", hint)


def _clock(look: Look) -> Iterator[FactRow]:
    doubted = clock_fold.doubted(look.state)
    yield ("clock", clock.said(look.state), "warn" if doubted else "ok", clock.WAY_OUT)


def _tasks(look: Look) -> Iterator[FactRow]:
    meta = look.state.meta
    yield (
        "tasks",
        f"{waiting_count(look.state):,} waiting, {running_count(look.state):,} running, "
        f"{meta.completed:,} completed, {meta.failed:,} failed",
        "ok",
        "",
    )


def _workers(look: Look) -> Iterator[FactRow]:
    workers = look.state.workers.values()
    alive = sum(w.status == ALIVE for w in workers)
    words = f"{count(alive, 'worker')} alive of {len(workers):,}"
    idle = not alive and bool(look.state.tasks)
    hint = "tasks wait for one: asb worker NAME -- CMD…"
    yield ("workers", words, "warn" if idle else "ok", hint)


def _dead_letters(look: Look) -> Iterator[FactRow]:
    letters = look.bus.client.call("XLEN", look.bus.keys.deadletter)
    dropped = dropped_count(look.bus)
    more = f", and {count(dropped, 'older one')} had to go" if dropped else ""
    yield (
        "dead letters",
        f"{letters:,}{more}",
        "warn" if letters or dropped else "ok",
        "entries that were refused: `asb deadletter` lists, shows, corrects and sends them again",
    )


def _stray_intakes(look: Look) -> Iterator[FactRow]:
    """Streams that look like intakes and that nobody opened, as the engine found."""
    bus = look.bus
    kept = bus.client.call("GET", bus.keys.unregistered_intakes)
    try:
        strays = msgspec.json.decode(kept, type=_Strays) if kept else _Strays()
    except msgspec.MsgspecError:
        strays = _Strays()
    if not strays.count:
        yield ("intakes", "nobody writes to an intake that is not open", "ok", "")
        return
    named = ", ".join(strays.intakes[:5]) + (" …" if strays.count > 5 else "")
    hint = "asb acl NAME opens the intake of NAME; what nobody should write to, delete"
    yield ("intakes", f"{strays.count:,} not open, and not read: {named}", "warn", hint)


class _Strays(msgspec.Struct):
    intakes: list[str] = []
    count: int = 0


def _prices(look: Look) -> Iterator[FactRow]:
    yield price_row(look.state)


def _usage(look: Look) -> Iterator[FactRow]:
    yield usage_row(look.state, look.now)


def _disputed(look: Look) -> Iterator[FactRow]:
    said = disputed_line(look.state)
    number = count(len(disputes(look.state)), "report")
    hint = "`asb correct` lists them; asb correct TASK (--tokens N | --accept | --drop) --reason …"
    if said:
        yield ("disputed", f"{number}: {said.removeprefix('Disputed: ')}", "warn", hint)
    else:
        yield ("disputed", "nothing was reported beyond what is plausible", "ok", "")


def _operators(look: Look) -> Iterator[FactRow]:
    stream = look.bus.keys.main_intake
    yield (
        "operators",
        f"policy and corrections are taken from {stream}: whoever may write there can change "
        "budgets, agents too; `asb acl NAME` gives each a stream of its own",
        "ok",
        "",
    )


def _policy(look: Look) -> Iterator[FactRow]:
    yield _policy_row(look.bus, look.state)


def sums(look: Look) -> Iterator[FactRow]:
    for row in conserved(look.bus):
        yield (row.name, row.value, "ok" if row.good else "bad", BROKEN)


# In the order in which they are shown; the name stands for a check that could not be made.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("redis", _server),
    ("server", _program),
    ("log", _log),
    ("log's beginning", log.beginning),
    ("entries of the log", log.entries),
    ("keys", log.key_types),
    ("snapshots", _snapshot),
    ("services", _services),
    ("clock", _clock),
    ("tasks", _tasks),
    ("workers", _workers),
    ("dead letters", _dead_letters),
    ("intakes", _stray_intakes),
    ("usage", _usage),
    ("prices", _prices),
    ("disputed", _disputed),
    ("operators", _operators),
    ("policy", _policy),
    ("shares", lambda look: share_rows(look.bus.settings, look.state)),
    ("archive", lambda look: archive_rows(look.bus)),
    ("forgotten words", forgotten_rows),
    ("agents", lambda _: program_rows()),
)


def usage_row(state: State, now: int) -> FactRow:
    """Usage that was told in figures which contradict each other or cannot be read."""
    fresh = flags.recent(state, now)
    ever = sum(flagged.count for flagged in state.flags.values())
    if not fresh:
        before = f" (before this day, {count(ever, 'report')} did not)" if ever else ""
        return ("usage", f"what was told can be read and agrees with itself{before}", "ok", "")
    named = ", ".join(list(fresh)[:NAMED])
    last = next(iter(fresh.values()))
    return (
        "usage",
        f"told by {named} in figures that contradict each other or cannot be read; "
        f"{ever:,} so far, the last: {last.flag}",
        "warn",
        "a total wins, the unreadable is unknown; `asb events` says `flagged` beside each",
    )


def price_row(state: State) -> FactRow:
    """Models that something was charged for and whose price nobody knows."""
    models = unpriced(state.lifetime, state)
    if not models:
        return ("prices", "known of every model that was used", "ok", "")
    named = names_text([model or "usage that names no model" for model in models], NOTICED)
    return (
        "prices",
        f"nobody knows that of {named}: it costs what its agent says, else what was held",
        "warn",
        "`asb policy price MODEL --input … --output …` sets one; so does [policy.prices] at first",
    )


def _policy_row(bus: Bus, state: State) -> FactRow:
    if not state.meta.events:
        return ("policy", "the log is empty: the settings fill it at the first start", "ok", "")
    differing = differences(initial_policy.policy(bus.settings), state.policy)
    if not differing:
        return ("policy", "the log's policy is that of the settings", "ok", "")
    return (
        "policy",
        f"the log's own policy counts, and differs from the settings in {', '.join(differing)}",
        "warn",
        "`asb limits` changes the log's policy; or set the configuration to what the log says",
    )


def differences(settings: PolicyChanged, log: PolicyChanged) -> list[str]:
    """Which parts of the policy the settings would set differently; what several buses divide is
    set by none of them."""
    settings, log = (
        replace(policy, limits=tuple(x for x in policy.limits if share_of_limit(log, x) is None))
        for policy in (settings, log)
    )
    names = [f.name for f in msgspec.structs.fields(PolicyChanged)]
    return [
        name.replace("_", " ")
        for name in names
        if name not in ("book", "reason", "shares") and _plain(settings, name) != _plain(log, name)
    ]


def _plain(policy: PolicyChanged, name: str) -> Any:
    value: Any = getattr(policy, name)
    return sorted(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
