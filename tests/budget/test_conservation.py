"""T38: the log = windows = totals = reports = views; and ``replay --verify`` finds what is not.

Views are read by GET; an engine, workers and usage from outside run meanwhile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from services.cli import verify
from services.client.bus import Bus as Asked
from services.queries.verify import conserved, read_views
from services.store.client import SyncClient
from services.store.rebuild import write_snapshot
from services.worker import Result, Task, Usage
from tests.budget.ground import PROVING, audit_of, often, raw_log, say
from tests.integration.test_engine_ground import Bus, caught_up, limit, running, working
from tests.wait import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7_200 if PROVING else 60)]
LIMITS = (limit("global", "tokens", "hour", 10**9), limit("project", "tokens", "day", 40_000))


@contextlib.contextmanager
def asking(bus: Bus) -> Generator[Asked]:
    """The bus as a command sees it."""
    with contextlib.closing(SyncClient(bus.url)) as client:
        yield Asked(bus.settings, client, bus.keys)


async def _varied(task: Task) -> Result:
    n = int(task.text.split()[-1])
    if n % 5 == 0:
        raise RuntimeError("no luck")
    parts = Usage(input_tokens=100 + n, output_tokens=n, cache_read_tokens=7 * n)
    return Result("ok", parts if n % 3 else None)


async def _soak(bus: Bus, rounds: int) -> None:
    """Rounds of work with a look at every sum after each."""
    hosts = [bus.host(), bus.host()]
    async with running(*hosts), working(bus, "w1", "w2", capacity=10, handler=_varied):
        for number in range(rounds):
            tasks = [
                await bus.submit(f"fix bug {n}", project=f"p{n % 3}", max_attempts=1)
                for n in range(12)
            ]
            await bus.tell("usage.recorded", agent="gemini", total_tokens=11 + number)
            await bus.ended(*tasks)
            await caught_up(bus, *hosts)

            def final_charge() -> bool:
                """The views stand for the end of the log."""
                with asking(bus) as asked:
                    found, last = read_views(asked), asked.last_id()
                    both = (found.throttle, found.usage)
                    return all(b and msgspec.json.decode(b)["as_of"] == last for b in both)

            await wait_until(final_charge, within=10, what="views of the end of the log")
            with asking(bus) as asked:
                rows = conserved(asked)
            assert [row for row in rows if not row.good] == []
            assert {"view of token usage", "view of the throttle"} <= {row.name for row in rows}


async def test_every_sum_is_the_same_after_every_round(redis_url: str, namespace: str) -> None:
    rounds = often(3, 2_000)
    bus = Bus(redis_url, namespace, limits=LIMITS)
    await _soak(bus, rounds)
    audit = audit_of(raw_log(redis_url, bus.keys.log))
    say(f"soak: {rounds} rounds, {audit.checked['charges']:,} charges, {audit.total[0]:,} tokens")
    assert audit.findings == []
    with asking(bus) as asked:
        write_snapshot(asked.client, asked.keys)
        assert verify.verified(asked, None, as_json=True)
    await bus.close()


async def _small_bus(url: str, namespace: str) -> Bus:
    bus = Bus(url, namespace, limits=LIMITS)
    await _soak(bus, 1)
    return bus


def _json(asked: Asked, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    good = verify.verified(asked, None, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["verified"] == good
    return found


async def test_verify_finds_a_view_a_snapshot_and_a_log_that_were_tampered_with(
    redis_url: str, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = await _small_bus(redis_url, namespace)
    with asking(bus) as asked:
        good = _json(asked, capsys)
        assert good["verified"]
        assert good["audit"]["broken"] == 0
        assert good["audit"]["checked"]["dispatches"] == 12
        assert min(good["events_per_second"].values()) > 0

        body = asked.client.call("GET", bus.keys.token_usage)
        view = json.loads(body)
        view["total"]["tokens_used"] += 1
        asked.client.call("SET", bus.keys.token_usage, json.dumps(view))
        assert [c["name"] for c in _json(asked, capsys)["checks"] if not c["good"]] == [
            bus.keys.token_usage
        ]
        wrong = [r.name for r in conserved(asked) if not r.good]
        assert wrong == ["view of token usage"]
        asked.client.call("SET", bus.keys.token_usage, body)

        _tampered_snapshot(asked)
        found = _json(asked, capsys)
        folds = [c for c in found["checks"] if c["name"].startswith("from the start")]
        assert not any(c["good"] for c in folds)
        assert {c["log_id"] for c in folds} == {asked.last_id()}
        assert "scopes of global" in folds[0]["value"]
        asked.client.call("DEL", bus.keys.snapshot)

        entry = _tampered_log(asked)
        found = _json(asked, capsys)
        assert found["audit"]["findings"][0]["log_id"] == entry
        assert found["audit"]["findings"][0]["rule"] == "limit"
    await bus.close()


def _tampered_snapshot(asked: Asked) -> None:
    """A snapshot in which one token is missing from a window."""
    state = asked.state()
    next(iter(state.scopes["global"].hours.values())).tokens -= 1
    asked.client.call("SET", asked.keys.snapshot, state.encode())


def _tampered_log(asked: Asked) -> str:
    """The same log, but for one dispatch that holds more than its project has; its place."""
    entries = asked.client.call("XRANGE", asked.keys.log, "-", "+")
    asked.client.call("DEL", asked.keys.log)
    changed = ""
    for place, fields in entries:
        if fields[1] == b"task.dispatched" and not changed:
            changed = place.decode()
            data = json.loads(fields[11])
            fields[11] = json.dumps({**data, "hold_tokens": 40_000}).encode()
        asked.client.call("XADD", asked.keys.log, place, *fields)
    return changed
