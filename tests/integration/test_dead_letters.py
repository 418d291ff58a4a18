"""`asb deadletter` and `asb acl` on a bus at work."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from services.client.dead_letters import corrected, read
from services.runtime.settings_types import DeadLetterSettings
from services.store.dead_letters import cut
from services.store.health import read_facts
from tests.integration.test_engine_ground import Asb, Bus, asb_on, running
from tests.wait import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def asb(bus: Bus, capsys: pytest.CaptureFixture[str]) -> Asb:
    return asb_on(bus, capsys)


async def refused(bus: Bus, *fields: str | bytes, intake: str | None = None) -> str:
    """A bad entry at an intake; its dead letter's id."""
    entry = await bus.put(*fields, intake=intake)

    async def letter() -> str:
        found = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
        return next((i.decode() for i, f in found if f[3].decode() == entry), "")

    return await wait_until(letter, what="its dead letter")


async def left(bus: Bus) -> int:
    return int(await bus.client.call("XLEN", bus.keys.deadletter))


async def test_dead_letters_are_listed_and_shown(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        letter = await refused(bus, "type", "usage.recorded", "agent", "codex", "x", b"\xff\x00")
    assert letter in await asb("deadletter")
    shown = await asb("deadletter", "show", letter)
    assert "not UTF-8" in shown
    assert "\\xff" in shown
    [view] = msgspec.json.decode(await asb("deadletter", "list", "--json"))
    assert (view["id"], view["type"], view["intake"]) == (
        letter,
        "usage.recorded",
        bus.keys.main_intake,
    )


async def test_a_corrected_entry_goes_back_to_its_intake_and_is_taken_once(
    bus: Bus, asb: Asb
) -> None:
    async with running(bus.host()):
        await bus.tell("intake.opened", name="ada")
        flat = await refused(
            bus, "type", "usage.recorded", "agent", "codex", "input_tokens", "many", intake="ada"
        )
        body = '{"agent":"codex","input_tokens":"many","ticket":7}'
        nested = await refused(bus, "type", "usage.recorded", "data", body)
        await asb("deadletter", "retry", flat, nested, "--set", "input_tokens=40")
        await wait_until(lambda: len(bus.events("usage.recorded")) == 2, what="both on the log")
    by_intake = {e.source: e for e in bus.events("usage.recorded")}
    assert by_intake[bus.keys.intake("ada")].data.charged.tokens == 40
    assert b'"ticket":7' in by_intake[bus.keys.main_intake].raw
    assert await left(bus) == 0


async def test_a_retry_that_was_interrupted_counts_once(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        letter = await refused(bus, "type", "usage.recorded", "agent", "codex", "input_tokens", "x")
        kept = await bus.client.call("XRANGE", bus.keys.deadletter, letter, letter)
        change = ("--set", "input_tokens=40")
        await asb("deadletter", "retry", letter, *change)
        # As if it had died before it took the letter away, and was run again.
        again = corrected(read(kept[0]), [("input_tokens", "40")])
        await bus.put(*again)
        await bus.ended(await bus_done(bus))
    assert len(bus.events("usage.recorded")) == 1


async def bus_done(bus: Bus) -> str:
    """A task that is cancelled at once: when it has ended, all before it was taken in."""
    task = await bus.submit()
    await bus.tell("task.cancel_requested", task=task)
    return task


async def test_what_is_still_wrong_comes_back_with_the_reason(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        letter = await refused(bus, "type", "task.submitted", "data", '{"text":""}')
        await asb("deadletter", "retry", letter, code=1)

        async def another() -> bool:
            found = await bus.client.call("XRANGE", bus.keys.deadletter, "-", "+")
            return [i.decode() for i, _ in found] not in ([], [letter])

        await wait_until(another, what="a new dead letter")
    assert await left(bus) == 1


async def test_dropped_letters_are_gone(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        first = await refused(bus, "a", "b")
        await refused(bus, "c", "d")
    await asb("deadletter", "drop", first)
    assert await left(bus) == 1
    await asb("deadletter", "drop", "--all")
    assert await left(bus) == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "5-0"), 1),
        (("show", "nonsense"), 1),
        (("retry",), 2),
        (("burn",), 2),
        (("drop", "1-1", "--set", "a=b"), 2),
        (("retry", "1-1", "--set", "nothing"), 2),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_said_so(asb: Asb, words: tuple[str, ...], code: int) -> None:
    assert await asb("deadletter", *words, code=code)


async def test_what_others_wrote_among_the_dead_letters_is_shown_and_dropped(
    bus: Bus, asb: Asb
) -> None:
    place = await bus.client.call("XADD", bus.keys.deadletter, "*", "not", "ours")
    assert "ours" in await asb("deadletter", "show", place.decode())
    assert "names no intake" in await asb("deadletter", "retry", place.decode(), code=1)
    await asb("deadletter", "drop", place.decode())


# -- bounds --------------------------------------------------------------------------------------


async def test_a_huge_entry_is_kept_cut_and_its_size_is_named(bus: Bus, asb: Asb) -> None:
    """Given an entry of 10 MB that is refused, then what is kept of it is short, its size is said,
    and it is not sent again as if it were whole."""
    async with running(bus.host()):
        body = b'{"text":"' + b"x" * 10_000_000 + b'"}'
        letter = await refused(bus, "type", "task.submitted", "data", body)
        assert await bus.client.call("MEMORY", "USAGE", bus.keys.deadletter) < 1_000_000
        shown = await asb("deadletter", "show", letter)
        assert f"{len(body) + 22:,} bytes, of which 262,144 were kept" in shown
        [view] = msgspec.json.decode(await asb("deadletter", "list", "--json"))
        assert (view["size"], view["cut"]) == (len(body) + 22, True)
        assert "were kept" in await asb("deadletter", "retry", letter, code=1)
    assert await left(bus) == 1


async def test_what_had_to_go_is_counted_and_shown(bus: Bus, asb: Asb) -> None:
    bounds = DeadLetterSettings(max_count=4)
    bus.settings = msgspec.structs.replace(bus.settings, deadletters=bounds)
    async with running(bus.host()):
        for _ in range(10):
            await bus.put("type", "nonsense")
        await refused(bus, "type", "nonsense")
        assert await left(bus) == 4
        assert "4, and 7 older ones had to go" in await asb("doctor")


@pytest.mark.parametrize(
    ("fields", "most", "kept"),
    [
        ([b"a", b"bc"], 3, [b"a", b"bc"]),
        ([b"a", b"bcd"], 3, [b"a", b"bc"]),
        ([b"abc", b"d"], 3, [b"abc", b""]),
        ([b"a", b"b", b"c", b"d"], 2, [b"a", b"b"]),
        ([], 3, []),
    ],
)
def test_an_entry_is_cut_between_no_name_and_its_value(
    fields: list[bytes], most: int, kept: list[bytes]
) -> None:
    assert cut(fields, most) == kept


# -- acl -------------------------------------------------------------------------------------------


async def test_asb_acl_prints_the_user_and_opens_the_intake(
    bus: Bus, asb: Asb, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    async with running(bus.host()):
        line = await asb("acl", "ada", "--password-file", str(secret))
        await wait_until(lambda: bus.events("intake.opened"), what="the intake opened")
    password = secret.read_text().strip()
    assert secret.stat().st_mode & 0o077 == 0
    assert password not in line
    assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in line
    assert "resetchannels" in line
    reads = "%R~" if (await read_facts(bus.client)).version >= (7, 0) else "~"
    assert f"{reads}{bus.keys.inbox('ada')}" in line
    assert await asb("acl", "ada", "--password-file", str(secret), "--no-open") == line


async def test_asb_acl_says_what_an_old_redis_does_not_enforce(bus: Bus, asb: Asb) -> None:
    line = await asb("acl", "ada", "--redis-version", "6.2", "--no-open")
    assert "%R~" not in line
    for role in ("service", "viewer"):
        assert "resetchannels" in await asb("acl", "ops", "--role", role)
    assert bus.events("intake.opened") == []


@pytest.mark.parametrize("name", ["a b", "a:b", "*", "x" * 200])
async def test_asb_acl_takes_plain_names_only(asb: Asb, name: str) -> None:
    assert "error" in await asb("acl", name, "--no-open", code=1)


async def test_the_doctor_names_intakes_that_nobody_opened(bus: Bus, asb: Asb) -> None:
    await bus.put("type", "x", intake="mallory")
    async with running(bus.host()):

        async def swept() -> bytes:
            return await bus.client.call("GET", bus.keys.unregistered_intakes) or b""

        await wait_until(swept, what="the sweep")
        assert bus.keys.intake("mallory") in await asb("doctor")
