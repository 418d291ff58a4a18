"""A hand on the log: XTRIM, XDEL, foreign entries, FLUSHALL, keys of another type.

Everything runs as users start it (`asb up`, `asb service engine`, `asb status` …) on a Redis of its
own. Under ``make prove`` the hand does it all again and again while tasks run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from events.keys import Keys
from services.runtime.errors import AsbError
from services.store import rebuild
from services.store.client import SyncClient
from tests.conservation import conserved_over_http
from tests.e2e.cli import ASB, asb, environment
from tests.integration.test_engine_ground import settings_for
from tests.servers import RedisServer
from tests.subscribers import subscriber
from tests.wait import wait_blocking

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

KEYS = Keys()
PROVE = bool(os.environ.get("ASB_TEST_PROVE"))
LONG = 60.0
AGENT = "import sys; print('did', sys.stdin.read())"
READING = (
    ("status",),
    ("metrics",),
    ("throttle",),
    ("tasks",),
    ("report",),
    ("replay",),
    ("replay", "--verify"),
    ("doctor", "--deep"),
)


class Part:
    """One process of the bus, with what it says."""

    def __init__(self, bus: Bus, name: str, *arguments: str) -> None:
        self.log = bus.folder / f"{name}-{next(bus.numbers)}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*ASB, arguments[0], f"--redis={bus.server.url}", *arguments[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=bus.folder, env=environment(),
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self) -> int | None:
        return self.process.poll()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=40)


class Bus:
    """A Redis, and what production starts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()
        self.server = RedisServer(folder / "redis").start()
        self.parts: list[Part] = []
        self.client = SyncClient(self.server.url)
        self._submitted = itertools.count()
        self.alerts: list[dict[str, Any]] = []
        self._listening = subscriber(self.server.url)
        self._listening.subscribe(KEYS.alerts_channel)

    def start(self, *arguments: str) -> Part:
        part = Part(self, arguments[0], *arguments)
        self.parts.append(part)
        return part

    def up(self) -> Part:
        """All services and a worker."""
        return self.start("up", "--workers=1", "--capacity=4", "--", sys.executable, "-c", AGENT)

    def ready(self, *parts: Part) -> None:
        """They have folded the log, and serve."""
        self.until(lambda: all("Ctrl-C stops" in part.said for part in parts))

    def submit(self, count: int = 1) -> list[str]:
        """Tasks that the intake has acknowledged; their ids."""
        names = [f"t{next(self._submitted)}" for _ in range(count)]
        for name in names:
            body = json.dumps({"task": name, "text": f"fix {name}"})
            call = ("XADD", KEYS.main_intake, "*", "type", "task.submitted", "id", name)
            self.client.call(*call, "data", body)
        return names

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = asb(arguments[0], f"--redis={self.server.url}", *arguments[1:], cwd=self.folder)
        assert "Traceback" not in done.stderr + done.stdout, (arguments, done.stderr)
        return done

    def doctor(self) -> dict[str, tuple[str, str]]:
        """Value and verdict of each row."""
        done = self.run("doctor", "--json")
        assert done.stdout, done.stderr
        return {c["name"]: (c["value"], c["verdict"]) for c in json.loads(done.stdout)["checks"]}

    def state(self) -> rebuild.State:
        return rebuild.rebuild(self.client, KEYS)

    def events(self, kind: str) -> list[Any]:
        with contextlib.suppress(AsbError):
            batches = rebuild.read_log(self.client, KEYS)
            return [e for batch in batches for e in batch if e.type == kind]
        return []

    def submitted_on_log(self) -> set[str]:
        return {e.data.task for e in self.events("task.submitted")}

    def until(self, predicate: Any, what: str = "") -> Any:
        return wait_blocking(predicate, within=LONG, what=what or self.said())

    def taken(self, names: list[str]) -> None:
        self.until(lambda: set(names) <= self.submitted_on_log(), f"{names} taken: {self.said()}")

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """Alerts of a kind, published so far."""
        while (message := self._listening.get_message(ignore_subscribe_messages=True)) is not None:
            self.alerts.append(json.loads(message["data"]))
        return [alert for alert in self.alerts if alert["type"] == kind]

    def last_id(self) -> str:
        return self.client.call("XREVRANGE", KEYS.log, "+", "-", "COUNT", 1)[0][0].decode()

    def conserved(self) -> None:
        """Every sum is what the log says, those of the metrics too."""
        conserved_over_http(self.server.url, settings_for("asb"))

    def said(self) -> str:
        return "\n".join(part.said[-1500:] for part in self.parts)

    def end(self) -> None:
        for part in self.parts:
            part.kill()
        for part in self.parts:
            assert "Traceback" not in part.said, part.said
        self._listening.close()
        self.client.close()
        self.server.stop()


def reported(text: str) -> None:
    """A count, for whoever runs the tests."""
    sys.stdout.write(f"hands: {text}\n")


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    made = Bus(tmp_path)
    yield made
    made.end()


def used(bus: Bus) -> dict[str, int]:
    """What every task has used, by its charges, and what the global scope counts."""
    state = bus.state()
    return {"tokens": sum(c.tokens for c in state.lifetime.values()), "ended": state.meta.ended}


def worked(bus: Bus, count: int = 6) -> dict[str, int]:
    """A bus at rest on which ``count`` tasks were done; what they used."""
    up = bus.up()
    bus.submit(count)
    bus.until(lambda: bus.state().meta.completed >= count)
    up.stop()
    found = used(bus)
    assert found["tokens"] > 0
    return found


# -- A4: the log's beginning -----------------------------------------------------------------------


@pytest.mark.parametrize("keep", [5, 0])
def test_a_log_that_lost_its_beginning_is_refused_by_every_command_and_host(
    bus: Bus, keep: int
) -> None:
    worked(bus)
    bus.client.call("DEL", KEYS.snapshot)
    assert bus.client.call("XTRIM", KEYS.log, "MAXLEN", keep) > 0
    dispatched = len(bus.events("task.dispatched"))
    refused = 0
    for command in READING:
        done = bus.run(*command)
        assert done.returncode == 1, (command, done.stdout)
        said = done.stdout + done.stderr
        assert "lost its beginning" in said, (command, said)
        assert "RENAME" in said or command[0] == "doctor", (command, said)
        refused += 1
    for host in (bus.up(), bus.start("service", "engine"), bus.start("service", "usage")):
        bus.until(lambda host=host: host.ended() is not None)
        assert (host.ended(), "lost its beginning" in host.said) == (1, True), host.said
        refused += 1
    assert len(bus.events("task.dispatched")) == dispatched
    reported(f"commands and hosts that refused: {refused}")
    assert refused == len(READING) + 3


def test_a_log_cut_behind_a_snapshot_goes_on_with_its_budgets_exact(bus: Bus) -> None:
    before = worked(bus)
    rebuild.write_snapshot(bus.client, KEYS)
    limits = bus.state().policy.limits
    assert bus.client.call("XTRIM", KEYS.log, "MAXLEN", 3) > 0
    host = bus.up()
    more = bus.submit(4)
    bus.taken(more)
    bus.until(lambda: bus.state().meta.completed == before["ended"] + 4)
    state = bus.state()
    assert state.policy.limits == limits
    hour = sum(b.tokens for b in state.scopes["global"].hours.values())
    assert hour == used(bus)["tokens"] > before["tokens"]
    assert host.ended() is None
    assert bus.doctor()["log's beginning"][1] == "warn"
    assert bus.run("status").returncode == 0


@pytest.mark.parametrize("keep", [1, 0])
def test_a_living_host_keeps_what_a_hand_cut_off_and_says_so(bus: Bus, keep: int) -> None:
    host = bus.up()
    bus.submit(5)
    bus.until(lambda: bus.state().meta.completed == 5)
    before = used(bus)
    bus.client.call("DEL", KEYS.snapshot)
    bus.client.call("XTRIM", KEYS.log, "MAXLEN", keep)
    bus.until(lambda: bus.heard("LOG_TRIMMED"))
    bus.until(lambda: bus.client.call("EXISTS", KEYS.snapshot))
    host.stop()
    assert used(bus) == before
    bus.up()
    bus.submit(3)
    bus.until(lambda: bus.state().meta.completed == 8)
    assert used(bus)["tokens"] > before["tokens"]
    assert bus.events("policy.changed") == []  # nobody began a new log


# -- A5: foreign entries ---------------------------------------------------------------------------

FOREIGN: tuple[tuple[str, ...], ...] = (
    ("hello", "world"),
    ("type", "task.submitted", "data", "{}"),
    ("type", "x"),
    ("type", "task.submitted", "id", "a", "source", "b", "from", "c", "at", "d", "data", "e"),
    ("type", "nothing.known", "id", "a", "source", "b", "from", "c", "at", "1", "data", "[1"),
    ("data", '{"v":1}', "type", "task.started"),
    ("type", "task.started", "id", "a", "source", "b", "from", "c", "at", "9", "data", '{"v":1}'),
    ("\udcff\udcfe", "\udcff"),
)


def plant(bus: Bus) -> list[str]:
    """Foreign entries of every sort; their ids."""
    return [
        bus.client.call(
            "XADD", KEYS.log, "*", *(f.encode("utf-8", "surrogateescape") for f in fields)
        ).decode()
        for fields in FOREIGN
    ]


def test_foreign_entries_are_skipped_counted_told_of_and_shown(bus: Bus) -> None:
    host = bus.up()
    bus.submit(2)
    bus.until(lambda: bus.state().meta.completed == 2)
    planted = plant(bus)
    done = bus.submit(3)
    bus.until(lambda: bus.state().meta.completed == 5)
    assert host.ended() is None
    bus.until(lambda: bus.heard("FOREIGN_ENTRIES"))
    assert bus.heard("FOREIGN_ENTRIES")[0]["first"] == planted[0]
    value, verdict = bus.doctor()["foreign entries"]
    assert (value.split()[0], verdict) == (str(len(FOREIGN)), "warn")
    assert set(done) <= bus.submitted_on_log()
    for command in (*READING, ("events",), ("alerts",), ("task", done[0])):
        assert bus.run(*command).returncode == 0, (command, bus.run(*command).stderr)
    other = bus.start("service", "engine")  # a start over them, too
    bus.ready(other)
    reported(f"foreign entries skipped: {len(planted)}")
    for place in planted:
        assert bus.client.call("XDEL", KEYS.log, place) == 1
    bus.submit(2)
    bus.until(lambda: bus.state().meta.completed == 7)
    assert bus.run("replay", "--verify").returncode == 0
    assert bus.events("log.went_back") == []
    assert bus.heard("LOG_WENT_BACK") == []
    bus.conserved()


def commands_processed(bus: Bus) -> int:
    info = bus.client.call("INFO", "stats").decode()
    return int(info.split("total_commands_processed:")[1].split()[0])


def test_a_foreign_entry_that_is_taken_away_again_is_no_livelock(bus: Bus) -> None:
    host = bus.up()
    bus.submit(1)
    bus.until(lambda: bus.state().meta.completed == 1)
    for _ in range(3):
        for seen in (True, False):
            (place,) = plant(bus)[-1:]
            for earlier, _fields in bus.client.call("XRANGE", KEYS.log, "-", "+"):
                if earlier.decode() != place and _fields[0] not in (b"type",):
                    bus.client.call("XDEL", KEYS.log, earlier)
            if seen:
                bus.taken(bus.submit(1))
            bus.client.call("XDEL", KEYS.log, place)
            before = bus.state().meta.completed
            bus.submit(2)
            bus.until(lambda before=before: bus.state().meta.completed >= before + 2)
    assert host.ended() is None
    began = commands_processed(bus)
    bus.submit(1)
    bus.until(lambda: bus.state().tasks == {})
    assert commands_processed(bus) - began < 200_000
    assert bus.heard("LOG_WENT_BACK") == []


def test_a_living_host_notices_that_its_last_event_was_deleted(bus: Bus) -> None:
    bus.start("service", "engine", "inbox", "usage", "throttle")
    names = bus.submit(3)
    bus.taken(names)
    bus.until(lambda: bus.state().indexes.next_undelegated() is None)
    gone = bus.last_id()
    bus.client.call("XDEL", KEYS.log, gone)
    [alert] = bus.until(lambda: bus.heard("LOG_WENT_BACK"))
    assert alert["was"] == gone
    [event] = bus.events("log.went_back")
    assert (event.data.was, event.data.now) == (gone, alert["now"])
    assert bus.doctor()["log went back"][1] == "warn"
    bus.taken(bus.submit(2))
    # A second host, and one that starts anew, stand where the log does.
    bus.start("service", "engine")
    bus.taken(bus.submit(2))
    assert len(bus.events("log.went_back")) == 1


def test_an_acknowledged_task_whose_event_was_deleted_is_taken_again(bus: Bus) -> None:
    part = bus.start("service", "intake", "throttle")
    [first] = bus.submit(1)
    bus.taken([first])
    last = bus.events("task.submitted")[-1]
    bus.client.call("XDEL", KEYS.log, last.log_id)
    bus.until(lambda: bus.heard("LOG_WENT_BACK"))
    bus.taken([first])
    assert part.ended() is None


def test_a_closed_log_is_named_with_its_repair(bus: Bus) -> None:
    host = bus.up()
    bus.submit(1)
    bus.until(lambda: bus.state().meta.completed == 1)
    top = bus.last_id()
    closed = f"{2**64 - 1}-{2**64 - 1}"
    bus.client.call("XADD", KEYS.log, closed, "a", "b")
    bus.submit(1)
    bus.until(lambda: host.ended() is not None)
    assert host.ended() == 1
    assert bus.run("status").returncode == 0
    # The named way out is gone word by word.
    said = " ".join(host.said.split())
    commands = re.findall(r"(?:XDEL|XSETID) LOG(?: [0-9A-Z-]+)+", said)
    assert [c.split()[0] for c in commands] == ["XDEL", "XSETID", "XSETID"]
    if bus.server.binary.identity.version < (7, 0):
        del commands[1]  # said for Redis 7 and newer
    for command in commands:
        bus.client.call(*(KEYS.log if word == "LOG" else word for word in command.split()))
    assert bus.last_id() >= top
    bus.up()
    bus.until(lambda: bus.state().meta.completed == 2)


# -- A7: keys of another type ----------------------------------------------------------------------


def test_views_and_inboxes_of_another_type_are_written_anew(bus: Bus) -> None:
    host = bus.up()
    bus.submit(1)
    bus.until(lambda: bus.state().meta.completed == 1)
    views = (KEYS.throttle, KEYS.token_usage)
    for key in (*views, KEYS.inbox("worker1")):
        wrong(bus, key)
    for view in views:
        bus.until(lambda view=view: bus.client.call("TYPE", view) == b"string")
    bus.submit(2)
    bus.until(lambda: bus.state().meta.completed == 3)
    assert host.ended() is None


def wrong(bus: Bus, key: str) -> None:
    """Put something of another type there, in one step: who misses a view writes it at once."""
    bus.client.call("SADD" if key != KEYS.log else "SET", "another", "x")
    bus.client.call("RENAME", "another", key)


def holds(bus: Bus) -> list[dict[str, Any]]:
    return bus.heard("SERVICE_HOLDS")


def today(bus: Bus) -> int:
    return int(bus.client.call("TIME")[0]) // 86_400


@pytest.mark.parametrize("what", ["duplicates", "index", "deadletter", "marks"])
def test_the_engine_holds_at_a_key_of_another_type_and_goes_on_when_it_is_gone(
    bus: Bus, what: str
) -> None:
    host = bus.up()
    bus.submit(2)
    bus.until(lambda: bus.state().meta.completed == 2)
    key = {
        "duplicates": KEYS.duplicates(today(bus)),
        "index": KEYS.task_index("t2"),
        "deadletter": KEYS.deadletter,
        "marks": KEYS.deadletter_marks,
    }[what]
    wrong(bus, key)
    length = bus.client.call("XLEN", KEYS.log)
    if what in ("deadletter", "marks"):
        bus.client.call("XADD", KEYS.main_intake, "*", "type", "nonsense", "data", "{}")
    names = bus.submit(1)
    [alert] = bus.until(lambda: bus.heard("SERVICE_HOLDS"))
    assert key in alert["error"]
    assert host.said.count(f"holds: Redis refuses a command: {alert['error']}") == 1
    assert bus.client.call("XLEN", KEYS.log) == length  # not half a turn
    assert host.ended() is None
    rows = bus.until(lambda: found if "holds" in (found := bus.doctor()) else None)
    assert (key in rows["holds"][0], rows["holds"][1]) == (True, "bad")
    assert what == "index" or rows[f"key {key}"][1] == "bad"
    for command in (("status",), ("tasks",)):
        assert bus.run(*command).returncode == 0, command
    bus.client.call("DEL", key)
    bus.taken(names)
    bus.until(lambda: bus.state().meta.completed == 3)
    if what in ("deadletter", "marks"):
        assert bus.client.call("XLEN", KEYS.deadletter) == 1
    assert len(bus.heard("SERVICE_HOLDS")) == 1


@pytest.mark.parametrize("what", ["snapshot", "alerts", "throttle", "usage", "garbage"])
def test_every_command_says_what_is_wrong_with_a_key_and_the_bus_runs(bus: Bus, what: str) -> None:
    key = {
        "snapshot": KEYS.snapshot,
        "alerts": KEYS.alert_mark,
        "throttle": KEYS.throttle,
        "usage": KEYS.token_usage,
        "garbage": KEYS.throttle,
    }[what]
    worked(bus, 2)
    if what == "garbage":
        bus.client.call("SET", key, "[1")
    else:
        wrong(bus, key)
    for command in (("status",), ("replay", "--verify"), ("doctor", "--deep")):
        done = bus.run(*command)
        assert done.returncode in (0, 1)
        if command == ("doctor", "--deep"):
            assert key in done.stdout, done.stdout
            assert done.returncode == 1
    host = bus.up()
    bus.submit(2)
    bus.until(lambda: bus.state().meta.completed == 4)
    assert host.ended() is None


def test_a_log_of_another_type_holds_the_engine_and_is_named(bus: Bus) -> None:
    host = bus.up()
    bus.submit(1)
    bus.until(lambda: bus.state().meta.completed == 1)
    bus.client.call("RENAME", KEYS.log, "aside")
    wrong(bus, KEYS.log)
    alert = bus.until(lambda: next((a for a in holds(bus) if a["service"] == "the engine"), None))
    assert KEYS.log in alert["error"]
    for command in (("status",), ("events",), ("replay", "--verify"), ("doctor", "--deep")):
        done = bus.run(*command)
        assert done.returncode == 1
        assert KEYS.log in done.stdout + done.stderr
    late = bus.start("service", "engine")
    bus.until(lambda: late.ended() is not None)
    assert (late.ended(), KEYS.log in late.said) == (1, True)
    bus.client.call("RENAME", "aside", KEYS.log)
    bus.submit(1)
    bus.until(lambda: bus.state().meta.completed == 2)
    assert host.ended() is None
    assert bus.events("log.went_back") == []


# -- A13: the log goes back ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["FLUSHALL", "DEL"])
def test_an_emptied_redis_begins_a_new_log_and_says_so(bus: Bus, command: str) -> None:
    hosts = [
        bus.start("service", *names) for names in (("engine", "usage"), ("engine",), ("throttle",))
    ]
    bus.ready(*hosts)
    bus.taken(bus.submit(3))
    bus.client.call(*(("FLUSHALL",) if command == "FLUSHALL" else ("DEL", KEYS.log)))
    after = bus.submit(2)
    bus.taken(after)
    bus.until(lambda: bus.heard("LOG_WENT_BACK"))
    events = [e for batch in rebuild.read_log(bus.client, KEYS) for e in batch]
    assert [e.type for e in events[:2]] == ["policy.changed", "log.went_back"]
    assert events[0].id.startswith("log:")
    assert events[1].data.now == "0-0"
    assert events[1].data.was != "0-0"  # where the host stood that tells of it
    assert bus.doctor()["log went back"][1] == "warn"
    assert [e.type for e in events].count("log.went_back") == 1
    assert len(bus.heard("LOG_WENT_BACK")) == 1
    assert [host.ended() for host in hosts] == [None, None, None]
    submitted = Counter(e.data.task for e in events if e.type == "task.submitted")
    assert set(submitted.values()) == {1}
    assert bus.run("replay", "--verify").returncode == 0
    bus.conserved()


# -- all of it, again and again --------------------------------------------------------------------

ROUNDS = 40 if PROVE else 4


def test_hands_at_random_stop_nothing_and_each_is_told_of(bus: Bus) -> None:
    bus.ready(bus.up(), bus.start("service", "engine"))
    counts: Counter[str] = Counter()
    chance = random.Random(7)
    hands = ("foreign", "undo", "last", "trim", "flush", "type")
    order: Iterator[str] = itertools.chain(hands, iter(lambda: chance.choice(hands), None))
    bus.taken(bus.submit(2))
    for hand in itertools.islice(order, max(ROUNDS, len(hands))):
        _do(bus, hand)
        counts[hand] += 1
        names = bus.submit(3)
        bus.taken(names)
        counts["tasks"] += len(names)
    bus.until(lambda: any(a["now"] == "0-0" for a in bus.heard("LOG_WENT_BACK")))
    reported(f"{dict(counts)}, alerts: {dict(Counter(a['type'] for a in bus.alerts))}")
    assert min(counts[hand] for hand in hands) > 0
    assert all(part.ended() is None for part in bus.parts), bus.said()
    assert len(bus.heard("LOG_WENT_BACK")) <= counts["last"] + counts["flush"]
    for kind in ("LOG_WENT_BACK", "FOREIGN_ENTRIES", "LOG_TRIMMED"):
        assert bus.heard(kind), kind
    last = bus.submit(1)
    bus.taken(last)


def _do(bus: Bus, hand: str) -> None:
    if hand in ("foreign", "undo"):
        planted = plant(bus)
        for place in planted if hand == "undo" else ():
            bus.client.call("XDEL", KEYS.log, place)
    elif hand == "last":
        bus.client.call("XDEL", KEYS.log, bus.last_id())
    elif hand == "trim":
        trimmed = len(bus.heard("LOG_TRIMMED"))
        if bus.client.call("XTRIM", KEYS.log, "MAXLEN", 2):
            bus.until(lambda: len(bus.heard("LOG_TRIMMED")) > trimmed)
            bus.until(lambda: bus.client.call("EXISTS", KEYS.snapshot))
    elif hand == "flush":
        bus.client.call("FLUSHALL")
    else:
        key = KEYS.duplicates(today(bus))
        bus.client.call("RENAME", key, "aside") if bus.client.call("EXISTS", key) else None
        wrong(bus, key)
        holds = len(bus.heard("SERVICE_HOLDS"))
        bus.submit(1)
        bus.until(lambda: len(bus.heard("SERVICE_HOLDS")) > holds)
        bus.client.call("DEL", key)
        if bus.client.call("EXISTS", "aside"):
            bus.client.call("RENAME", "aside", key)
