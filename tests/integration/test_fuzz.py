"""Random bytes, types and sizes at every intake for a bounded time: nothing stops, nothing is lost,
usage never falls. It prints what it did; ``ASB_TEST_FUZZ_S`` makes it longer,
``ASB_TEST_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec.structs import replace

from services.intake.decide import HANDLERS
from services.runtime.errors import CommandRefused
from services.runtime.settings_types import DeadLetterSettings
from tests.integration.test_engine_ground import Bus, caught_up, proven, running, working
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

SECONDS = float(os.environ.get("ASB_TEST_FUZZ_S", "4"))
SEED = int(os.environ.get("ASB_TEST_FUZZ_SEED", secrets.randbits(32)))
DOORS = (None, "ada", "bob")
NAMES = ("task", "attempt", "session", "agent", "worker", "text", "usage", "document", "model",
         "input_tokens", "total_tokens", "cost_usd", "after", "priority", "holds", "lease_s", "id",
         "v", "kind", "newest", "time", "data", "type", "name", "limits", "x")  # fmt: skip
# Not thrown about: whoever may write to the shared intake may change policy and pause workers.
KINDS = sorted(
    HANDLERS.keys() - {"policy.changed", "worker.joined", "worker.paused", "intake.opened"}
)
# What may rightly say nothing: a repeat, a goodbye twice, a document that adds nothing.
QUIET = frozenset(("worker.left", "worker.resumed", "progress.updated", "task.cancel_requested"))

Entry = list[str | bytes]


class Fuzz:
    """What is thrown, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def bytes(self) -> bytes:
        r = self.random
        size = r.choice((0, 1, 3, 10, 100, 1_000, 70_000 if r.random() < 0.05 else 20))
        return r.randbytes(size)

    def value(self, depth: int = 0) -> Any:
        """Any JSON value, with what breaks readers: huge, tiny, odd, nested, not finite."""
        r = self.random
        if depth < 4 and r.random() < 0.2:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        if depth < 4 and r.random() < 0.2:
            return {r.choice(NAMES): self.value(depth + 1) for _ in range(r.randrange(4))}
        return r.choice(
            (
                *(None, True, False, 0, -1, 1, 7, 10**15, -(10**15), 10**30, 2**63, 2**64),
                *(
                    0.5,
                    -0.0,
                    1e308,
                    1e-320,
                    "",
                    " ",
                    "1500",
                    "1e5",
                    "NaN",
                    "null",
                    "\x00",
                    "\ud7ff",
                ),
                *(
                    "a:b",
                    "*",
                    "w1",
                    "t1",
                    "../../x",
                    "x" * 300,
                    "\u202e",
                    "🚀" * 50,
                    "'; DROP",
                    "{}",
                ),
            )
        )

    def json(self) -> bytes:
        r = self.random
        shape = r.randrange(6)
        if shape == 0:
            return b"[" * r.randrange(20_000)
        if shape == 1:
            return b'{"text":' + b"9" * r.randrange(1, 6_000) + b"}"
        data = {r.choice(NAMES): self.value() for _ in range(r.randrange(8))}
        body = msgspec.json.encode(data)
        if shape == 2 and body:  # a byte changed, lost or doubled
            at = r.randrange(len(body))
            return body[:at] + r.choice((b"", r.randbytes(1), body[at : at + 2])) + body[at + 1 :]
        return body if r.random() < 0.9 else b'{"text":NaN,"input_tokens":Infinity}'

    def entry(self) -> tuple[str, Entry]:
        """A kind, and the fields of an entry that claims to be of it."""
        r = self.random
        kind = r.choice(KINDS)
        shape = r.randrange(5)
        if shape == 0:
            return "", [self.bytes() for _ in range(2 * r.randrange(1, 6))]
        if shape == 1:
            return "", ["type", self.bytes(), "data", self.json()]
        if shape == 2:
            flat: Entry = ["type", kind]
            for _ in range(r.randrange(1, 8)):
                flat += [r.choice(NAMES), r.choice((str(self.value()), self.bytes()))]
            return kind, _encodable(flat)
        if shape == 3:
            return kind, ["type", kind, "data", self.json(), "id", self.bytes()[:50]]
        return kind, ["type", kind, "data", self.json()]


def _encodable(fields: Entry) -> Entry:
    return [f if isinstance(f, bytes) else f.encode("utf-8", "replace") for f in fields]


@pytest.fixture
async def bus(redis_url: str, namespace: str) -> AsyncGenerator[Bus]:
    made = Bus(redis_url, namespace)
    # All of them are looked at in the end.
    kept = DeadLetterSettings(max_count=1_000_000, max_bytes=10**10)
    made.settings = replace(made.settings, deadletters=kept)
    yield made
    await made.close()


class Thrower:
    """Throws at every intake, good entries in between, and counts."""

    def __init__(self, bus: Bus, fuzz: Fuzz) -> None:
        self.bus, self.fuzz = bus, fuzz
        self.thrown: dict[tuple[str, str], str] = {}  # intake and entry id -> kind
        self.good: list[str] = []
        self.tokens = 0
        self.counts: Counter[str] = Counter()

    async def batch(self) -> None:
        """Some of everything, in one go."""
        commands: list[tuple[str | bytes | int | float, ...]] = []
        meant: list[tuple[str, str]] = []
        for _ in range(40):
            intake = self.bus.keys.intake(self.fuzz.random.choice(DOORS))
            kind, fields = self.fuzz.entry()
            commands.append(("XADD", intake, "*", *fields))
            meant.append((intake, kind))
        for place, reply in zip(meant, await self.bus.client.pipeline(commands), strict=True):
            if isinstance(reply, bytes):
                self.thrown[place[0], reply.decode()] = place[1]
            self.counts["refused by Redis"] += isinstance(reply, CommandRefused)
        await self._good()
        await self._nasty()

    async def _good(self) -> None:
        # Ids of their own: behind an id of the far future Redis' ids are given a second time.
        name = f"good-{len(self.good)}"
        self.good.append(await self.bus.submit("a good task", task=name))
        await self.bus.tell("usage.recorded", agent="codex", model="gpt-x", input_tokens=3)
        self.tokens += 3

    async def _nasty(self) -> None:
        """Keys of the wrong type, ids of the far future, odd progress documents."""
        r, keys, client = self.fuzz.random, self.bus.keys, self.bus.client
        progress = keys.progress(r.choice(("codex", "w1", "x y", "\x00")), r.choice(("t1", "a:b")))
        nasty = r.randrange(12)
        if nasty < 4:
            await client.call("SET", progress, self.fuzz.json())
        elif nasty == 4:
            await client.call("DEL", progress)
            with contextlib.suppress(CommandRefused):  # the view of it may be there again
                await client.call("LPUSH", progress, "x")
            await client.call("DEL", progress)
        elif nasty == 5:
            with_id = f"{r.choice((99_999_999_999_999, 2**63, 2**64 - 1))}-{len(self.good)}"
            intake = keys.intake(r.choice(DOORS))
            try:
                await client.call("XADD", intake, with_id, "type", "x")
                self.thrown[intake, with_id] = ""
                self.counts["ids of the far future"] += 1
            except CommandRefused:
                self.counts["refused by Redis"] += 1
        elif nasty == 6:
            await client.call("SET", keys.intake("nobody"), self.fuzz.bytes(), "EX", 60)


async def total(bus: Bus) -> int:
    """All tokens of the bus, as its view says."""
    view = await bus.client.call("GET", bus.keys.token_usage)
    return int(msgspec.json.decode(view)["total"]["tokens_used"]) if view else 0


@pytest.mark.timeout(SECONDS + 90)
async def test_nothing_stops_nothing_is_lost_and_usage_never_falls(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    thrower = Thrower(bus, Fuzz(SEED))
    seen: list[int] = []
    host = bus.host()
    # Nobody throws the worker's name: through the shared intake anyone may say goodbye for it.
    async with running(host), working(bus, "steady"):
        for name in ("ada", "bob"):
            await bus.tell("intake.opened", name=name)
        with anyio.move_on_after(SECONDS):
            while True:
                with anyio.CancelScope(shield=True):
                    await thrower.batch()
                    seen.append(await total(bus))
                await wait_until(
                    lambda: len(host.intakes) < 500, within=20, what="the engine keeps up"
                )
                await anyio.lowlevel.checkpoint()  # the death of the engine ends this, too
        state = await bus.ended(*thrower.good, within=30)
        await wait_until(lambda: len(host.intakes) == 0, within=20, what="empty intakes")
        await caught_up(bus, host)
    letters = len(await bus.dead())
    with capsys.disabled():
        _tell(bus, thrower, seen, letters)
    assert all(a <= b for a, b in itertools.pairwise(seen)), "usage fell"
    assert all(state.outcomes[task].status == "completed" for task in thrower.good)
    codex = [e for e in bus.events("usage.recorded") if e.data.model == "gpt-x"]
    assert sum(e.data.charged.tokens for e in codex) >= thrower.tokens
    assert await _lost(bus, thrower) == []
    assert await _buried_twice(bus) == []
    proven(bus, tasks=thrower.good)


async def _lost(bus: Bus, thrower: Thrower) -> list[tuple[str, str, str]]:
    """Entries that are neither on the log nor among the dead letters, though they said something.

    An entry behind an id of the far future has another id now; it is known by nothing else, so
    those are left out."""
    letters = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
    known = {(fields[1].decode(), fields[3].decode()) for _, fields in letters}
    for event in bus.events():
        intake, _, entry = event.origin.rpartition(" ")
        known.add((intake, entry))
    return [
        (intake, entry, kind)
        for (intake, entry), kind in thrower.thrown.items()
        if (intake, entry) not in known and kind not in QUIET and not _moved(entry)
    ]


async def _buried_twice(bus: Bus) -> list[tuple[str, str]]:
    letters = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
    places = Counter((fields[1].decode(), fields[3].decode()) for _, fields in letters)
    return [place for place, count in places.items() if count > 1]


def _moved(entry: str) -> bool:
    return len(entry.partition("-")[0]) > 13


def _tell(bus: Bus, thrower: Thrower, seen: list[int], letters: int) -> None:
    types = Counter(e.type for e in bus.events())
    print(  # noqa: T201
        f"\nfuzz seed {SEED}: {len(thrower.thrown):,} entries thrown at {len(DOORS)} intakes in "
        f"{SECONDS:g} s, {len(thrower.good):,} good tasks between; {sum(types.values()):,} events "
        f"and {letters:,} dead letters; usage looked at {len(seen):,} times, up to "
        f"{seen[-1] if seen else 0:,} tokens; {dict(thrower.counts)}"
    )
