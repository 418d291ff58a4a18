"""Whatever stands at an intake, the engine goes on: dead letters that name what was wrong."""

from __future__ import annotations

import itertools

import pytest

from tests.integration.test_engine_ground import Bus, Hands, caught_up, proven, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

Fields = tuple[str | bytes, ...]


def submission(data: str | bytes) -> Fields:
    return ("type", "task.submitted", "data", data)


def sent(kind: str, data: str) -> Fields:
    return ("type", kind, "data", data)


# What stands at the intake, and a part of what the dead letter must say.
POISON: list[tuple[Fields, str]] = [
    (submission("{"), "data is not valid JSON"),
    (submission(""), "data is not valid JSON"),
    (submission('{"text":"x"} trailing'), "data is not valid JSON"),
    (submission("'text'"), "data is not valid JSON"),
    (submission('{"text":NaN}'), "data is not valid JSON"),
    (submission("[" * 100_000), "data"),
    (submission('{"text":"x","deep":' + "[" * 5_000 + "]" * 5_000 + "}"), "data"),
    (submission(b'{"text":"\xff\xfe"}'), "data is not valid JSON"),
    (submission(b"\x80\x00\x01"), "data is not valid JSON"),
    (submission('{"text":"\\ud800"}'), "data is not valid JSON"),
    (submission("[1,2]"), "data: Expected `object`, got `array`"),
    (submission('"text"'), "data: Expected `object`, got `str`"),
    (submission("null"), "data: Expected `object`, got `null`"),
    (submission("7"), "data: Expected `object`, got `int`"),
    (submission("{}"), "missing required field `text`"),
    (submission('{"txt":"x"}'), "missing required field `text`"),
    (submission('{"text":5}'), "Expected `str`, got `int` - at `$.text`"),
    (submission('{"text":null}'), "Expected `str`, got `null` - at `$.text`"),
    (submission('{"text":"x","after":"a"}'), "`$.after`"),
    (submission('{"text":"x","after":[1]}'), "`$.after[0]`"),
    (submission('{"text":"x","priority":2}'), "`$.priority`"),
    (submission('{"text":"x","priority":"urgent"}'), "priority 'urgent' is unknown; one of low,"),
    (submission('{"text":"x","kind":"poetry"}'), "kind 'poetry' is unknown; one of ui,"),
    (submission('{"text":""}'), "text is empty"),
    (submission('{"text":" \\n\\t "}'), "text is empty"),
    (submission('{"text":"a\\u0007b"}'), "control character U+0007 at position 1"),
    (submission('{"text":"a\\u0000"}'), "control character U+0000"),
    (submission('{"text":"' + "x" * 300_000 + '"}'), "text has 300,000 bytes, more than 262,144"),
    (submission('{"text":"' + "\u4e2d" * 100_000 + '"}'), "text has 300,000 bytes"),
    (submission('{"text":"x","timeout_s":0}'), "timeout_s must be from 1"),
    (submission('{"text":"x","timeout_s":-5}'), "timeout_s must be from 1"),
    (submission('{"text":"x","timeout_s":1.5}'), "`$.timeout_s`"),
    (submission('{"text":"x","timeout_s":1e400}'), "data"),
    (submission('{"text":"x","timeout_s":' + "9" * 30 + "}"), "timeout_s"),
    (submission('{"text":"x","timeout_s":' + "9" * 5_000 + "}"), "data"),
    (submission('{"text":"x","max_attempts":' + "9" * 4_000 + "}"), "max_attempts"),
    (submission('{"text":"x","estimate_tokens":-1}'), "estimate_tokens"),
    (submission('{"text":"x","v":2}'), "v 2 is newer than this version"),
    (submission('{"text":"x","task":"a b"}'), "task 'a b' must be short"),
    (submission('{"text":"x","task":"' + "t" * 300 + '"}'), "must be short"),
    (submission('{"text":"x","worker":"a:b"}'), "worker 'a:b' must be short"),
    (submission('{"text":"x","agent":"*"}'), "agent '*' must be short"),
    (submission('{"text":"x","after":["nobody"]}'), "after names task 'nobody', which is unknown"),
    (("data", '{"text":"x"}'), "no field 'type'"),
    (("type", ""), "unknown type ''"),
    (("type", "task.exploded", "data", "{}"), "unknown type 'task.exploded'; one of"),
    (("type", b"\xff\xff", "data", "{}"), "type is not UTF-8"),
    (("type", "task.dispatched", "data", "{}"), "decided by asb and cannot be sent"),
    (("type", "task.submitted", "id", b"\xff", "data", '{"text":"x"}'), "id is not UTF-8"),
    (("type", "task.submitted", "id", "i" * 300, "data", '{"text":"x"}'), "id must be at most 200"),
    (("type", "task.submitted", "id", "a\nb\x01", "data", '{"text":"x"}'), "id must be at most"),
    (("type", "task.submitted", "text", b"\xff"), "text is not UTF-8"),
    (("type", "task.submitted", b"\xff", "x"), "a field name is not UTF-8"),
    (("type", "task.submitted", "text", "x", "timeout_s", "soon"), "timeout_s must be a whole"),
    (("type", "task.submitted", "", ""), "missing required field `text`"),
    (("type", "task.submitted", "type", "x", "type", "y"), "unknown type 'y'"),
    (("intake", "d", "entry", "e", "error", "none"), "no field 'type'"),
    (tuple(itertools.chain(*((f"f{n}", "v") for n in range(5_000)))), "no field 'type'"),
    (sent("task.started", '{"task":"nobody","attempt":1,"session":"s"}'), "'nobody' is unknown"),
    (sent("task.completed", '{"task":"nobody"}'), "missing required field `attempt`"),
    (sent("task.completed", '{"task":"n","attempt":"1","session":"s"}'), "`$.attempt`"),
    (sent("task.failed", '{"task":[],"attempt":1,"session":"s"}'), "`$.task`"),
    (sent("task.cancel_requested", '{"task":"nobody"}'), "task 'nobody' is unknown"),
    (sent("worker.joined", "{}"), "missing required field `worker`"),
    (sent("worker.joined", '{"worker":"a:b"}'), "worker 'a:b' must be short"),
    (sent("worker.joined", '{"worker":"w","capacity":0}'), "capacity must be from 1"),
    (sent("worker.joined", '{"worker":"w","capacity":' + "9" * 40 + "}"), "capacity"),
    (sent("worker.joined", '{"worker":"w","lease_s":-1}'), "lease_s must be from 1"),
    (sent("worker.left", '{"worker":"nobody"}'), "worker 'nobody' is unknown"),
    (sent("worker.paused", '{"worker":"nobody"}'), "worker 'nobody' is unknown"),
    (sent("usage.recorded", '{"agent":"codex"}'), "no tokens"),
    (sent("usage.recorded", '{"agent":"codex","input_tokens":-4}'), "input_tokens: "),
    (sent("usage.recorded", '{"agent":"codex","input_tokens":"many"}'), "input_tokens: "),
    (sent("usage.recorded", '{"agent":"codex","input_tokens":' + "9" * 40 + "}"), "input_tokens: "),
    (sent("usage.recorded", '{"agent":"codex","input_tokens":1,"cost_usd":"1e999"}'), "cost_usd"),
    (sent("usage.recorded", '{"agent":"codex","input_tokens":1,"cost_usd":-1}'), "cost_usd"),
    (sent("progress.updated", '{"agent":"a","task":"t"}'), "missing required field `document`"),
    (sent("policy.changed", '{"limits":[{"scope":"moon"}]}'), "data"),
]


async def test_every_poison_becomes_a_dead_letter_and_the_good_ones_go_on(bus: Bus) -> None:
    host = bus.host()
    async with running(host):
        worker = await Hands(bus).join(capacity=1_000)
        good: list[str] = []
        bad: dict[str, str] = {}
        for fields, why in POISON:
            bad[await bus.put(*fields)] = why
            good.append(await bus.submit())
        for _ in good:
            await worker.does(await worker.takes())
        await bus.ended(*good, within=20)
        await caught_up(bus, host)
        proven(bus, host, tasks=good)
    dead = await bus.dead()
    assert [entry for entry, _ in dead] == list(bad)
    unclear = [(error, bad[entry]) for entry, error in dead if bad[entry] not in error]
    assert unclear == []
    assert [error for _, error in dead if "asb could not handle" in error] == []
    assert host.stats.refused == len(POISON)


async def test_a_dead_letter_keeps_the_entry_and_is_written_once(bus: Bus) -> None:
    fields = ("type", "task.submitted", "data", b'{"text":"\xff"}', "more", "x")
    entry = await bus.put(*fields)
    for _ in range(3):  # nothing of it is on the log, so every start reads it again
        host = bus.host()
        async with running(host):
            await wait_until(lambda host=host: host.stats.refused)
    [(_, letter)] = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
    assert letter[:4] == [b"intake", bus.keys.main_intake.encode(), b"entry", entry.encode()]
    assert letter[6:8] == [b"size", b"%d" % sum(len(x) for x in fields)]
    assert letter[8:] == [f if isinstance(f, bytes) else f.encode() for f in fields]


async def test_an_entry_of_thousands_of_fields_is_buried_cut_short(bus: Bus) -> None:
    entry = await bus.put(*itertools.chain(*((f"f{n}", "v") for n in range(20_000))))
    async with running(bus.host()):
        await wait_until(bus.dead)
    assert [letter for letter, _ in await bus.dead()] == [entry]


async def test_a_task_of_the_longest_text_goes_through_unchanged(bus: Bus) -> None:
    text = "\u00e4" * (262_144 // 2)
    async with running(bus.host()):
        worker = await Hands(bus).join()
        await bus.submit(text)
        assert (await worker.takes())["text"] == text
