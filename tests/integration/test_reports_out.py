"""Reports over a real Redis: views, messages, new versions, `asb report`, and after a crash."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import msgspec
import pytest

from events.envelope import Event
from projections.days import day_of
from projections.state import State
from services.decider import Decider, Decisions, Inputs
from services.engine.host import Host
from services.projector import Setup
from services.store.heartbeat import Heartbeat
from services.store.prompts import Texts
from tests.integration.test_engine_ground import Asb, Bus, Hands, asb_on, caught_up, running
from tests.subscribers import subscriber
from tests.wait import stays, wait_until

pytestmark = pytest.mark.anyio

WORDS = ("this", "last")


@pytest.fixture
def asb(bus: Bus, capsys: pytest.CaptureFixture[str]) -> Asb:
    return asb_on(bus, capsys)


async def yesterdays_usage(bus: Bus, tokens: int = 4_000) -> str:
    """Usage of a day that is over: told with the time it was at. The date."""
    seconds, _ = await bus.client.call("TIME")
    then = (int(seconds) - 86_400) * 1_000_000
    date = day_of(then, bus.folded().zone).date
    document = {
        "status": "completed",
        "tokens_used": {
            "prompt": tokens // 4,
            "completion": tokens - tokens // 4,
            "model": "haiku",
        },
        "timestamp": f"{date}T12:00:00Z",
    }
    await bus.tell("progress.updated", agent="codex", task=f"t{tokens}", document=document)
    return date


def reports(bus: Bus) -> list[Event]:
    return bus.events("report.issued")


@contextlib.contextmanager
def listening(bus: Bus, pattern: str):
    """Messages on channels of this pattern, as they come."""
    pubsub = subscriber(bus.url)
    pubsub.psubscribe(pattern)
    heard: list[dict[str, Any]] = []

    def listen() -> list[dict[str, Any]]:
        while (message := pubsub.get_message(timeout=0.01)) is not None:
            if message["type"] in ("pmessage", b"pmessage"):
                heard.append(msgspec.json.decode(message["data"]))
        return heard

    try:
        yield listen
    finally:
        pubsub.close()


async def test_the_report_of_a_day_that_is_over_stands_in_redis_and_is_published_once(
    bus: Bus,
) -> None:
    with listening(bus, bus.keys.report_channel) as heard:
        host = bus.host()
        async with running(host):
            date = await yesterdays_usage(bus)
            await wait_until(heard, what="a message")
            [event] = reports(bus)
            await caught_up(bus, host)
            await stays(lambda: len(heard()) == 1, during=0.3)
        [message] = heard()
    view = msgspec.json.decode(await bus.client.call("GET", bus.keys.report(date)))
    assert view == message
    assert message["date"] == date
    assert message["agents"]["codex"]["tokens"] == 4_000
    assert message["total"]["tokens_used"] == 4_000
    assert (message["event"], message["version"]) == (event.id, 1)
    # A restart writes nothing and repeats nothing.
    with listening(bus, bus.keys.report_channel) as heard:
        async with running(bus.host()):
            await stays(lambda: heard() == [], during=0.3)


async def test_a_report_whose_engine_died_before_it_was_out_goes_out_after_the_restart(
    bus: Bus,
) -> None:
    async with running(bus.host("engine")):  # no projector: as if it had died there
        date = await yesterdays_usage(bus)
        await wait_until(lambda: reports(bus), what="the event")
    assert await bus.client.call("GET", bus.keys.report(date)) is None
    with listening(bus, bus.keys.report_channel) as heard:
        async with running(bus.host()):
            [message] = await wait_until(heard, what="the message after the restart")
            # It is published before it is written: a crash between repeats it, and drops none.
            await wait_until(
                lambda: bus.client.call("GET", bus.keys.report(date)), what="the report's key"
            )
    assert message["date"] == date


async def test_an_engine_with_nothing_to_do_still_asks_its_deciders_every_second(bus: Bus) -> None:
    """So a report is issued when its day ends, though nothing else happens then."""
    asked: list[int] = []

    def decide(_state: State, now: int, _inputs: Inputs) -> Decisions:
        asked.append(now)
        return iter(())

    setup = Setup(bus.client, bus.keys, Texts(), bus.settings)
    probe = Decider("probe", decide, frozenset())
    heartbeat = Heartbeat(bus.client, bus.keys, ())
    idle = Host(setup, [probe], [], Inputs(), heartbeat, whole_engine=False)
    async with running(idle):
        await wait_until(lambda: len(asked) >= 4, within=8, what="four turns of an idle engine")
    assert all(b - a < 2_000_000 for a, b in itertools.pairwise(asked))


async def test_what_somebody_else_wrote_in_its_place_is_replaced(bus: Bus) -> None:
    async with running(bus.host()):
        date = await yesterdays_usage(bus)
        await wait_until(lambda: reports(bus), what="the event")
    await bus.client.call("SET", bus.keys.report(date), "not ours")
    async with running(bus.host()):

        async def ours() -> bool:
            return b'"as_of"' in (await bus.client.call("GET", bus.keys.report(date)))

        await wait_until(ours, what="the report in its place")


async def test_asb_report_shows_any_day_week_and_month(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        hands = await Hands(bus).join()
        task = await bus.submit("Write documentation for the API", project="shop")
        await hands.does(await hands.takes(), tokens=400)
        await bus.ended(task)
        date = await yesterdays_usage(bus)
        await wait_until(lambda: reports(bus), what="the event")
    today = msgspec.json.decode(await asb("report", "--json"))
    assert today["total"]["tasks_completed"] == 1
    assert today["projects"]["shop"]["tokens"] == 400
    assert today["facts"]["dearest"][0]["task"] == task
    assert today["facts"]["waits"]["count"] == 1
    screen = await asb("report")
    assert f"DAILY REPORT {today['date']}" in screen
    assert "Write documentation for the API" in screen
    assert "█" in screen
    yesterday = msgspec.json.decode(await asb("report", "--date", "yesterday", "--json"))
    assert (yesterday["date"], yesterday["version"]) == (date, 1)
    for span, name in (("--week", "WEEKLY"), ("--month", "MONTHLY")):
        # Yesterday may lie in another week or month than today: both together have it all.
        parts = [
            msgspec.json.decode(await asb("report", span, w, "--json")) for w in ("this", "last")
        ]
        assert sum(part["total"]["tokens_used"] for part in parts) == 4_400
        assert name in await asb("report", span, "this")
    assert "2001-02-28" in await asb("report", "--date", "2001-02-28")


async def test_asb_report_publishes_what_was_issued_with_its_event(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        date = await yesterdays_usage(bus)
        await wait_until(lambda: reports(bus), what="the event")
    with listening(bus, f"{bus.keys.namespace}:tokens:*") as heard:
        await asb("report", "--date", date, "--publish")
        await asb("report", "--publish")
        messages = await wait_until(lambda: heard()[1:] and heard(), what="two messages")
    assert messages[0]["event"] == reports(bus)[0].id
    assert "event" not in messages[1]  # of a day that goes on


@pytest.mark.parametrize(
    "words",
    [
        ("--date", "2026-02-30"),
        ("--date", "soon"),
        ("--week", "2026-W54"),
        ("--month", "2026-13"),
        ("--week", "this", "--month", "this"),
        ("--month", "this", "--publish"),
    ],
    ids=" ".join,
)
async def test_asb_report_says_what_it_does_not_understand(
    asb: Asb, words: tuple[str, ...]
) -> None:
    assert "Error" in await asb("report", *words, code=2)
