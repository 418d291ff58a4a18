"""Five hundred secrets of every kind, written by everybody who writes to a bus: none stays."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from events.log import START, after
from services.client import bus as client_bus
from services.client import traces
from services.client.dead_letters import dead_letters
from services.client.follow import story
from services.client.story import Story
from services.queries.history import history_view
from services.screens.history import history_text
from services.store.client import SyncClient
from services.store.forgetting import clean_intake
from services.worker import Result, Task, Usage
from tests.integration.test_engine_ground import Bus, running, working
from tests.planted import plants
from tests.servers import RedisServer
from tests.wait import wait_until

pytestmark = pytest.mark.anyio

COUNT = 500


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    made = RedisServer(tmp_path / "redis").start()
    yield made
    made.stop()


async def test_five_hundred_planted_secrets(server: RedisServer) -> None:
    """Given secrets in results, errors, reasons, notes, documents, usage, rejected entries and
    flat fields, when what was taken in left its intakes and the file was written anew, then no
    byte of them is in Redis; a prompt alone keeps its own, and no screen shows that."""
    planted = plants(COUNT)
    answers = {f"t{n}": text for n, (_, text, _) in enumerate(planted[:100])}
    prompt = "use " + planted[0][1]
    bus = Bus(server.url, "s")

    async def handle(task: Task) -> Result:
        if task.id == "prompt":
            assert task.text == prompt  # its agent may need it
            return Result("used it", Usage(input_tokens=1))
        await task.progress({"note": answers[task.id]})
        if int(task.id[1:]) % 3 == 0:
            raise ValueError(f"it said {answers[task.id]}")
        return Result(answers[task.id], Usage(input_tokens=1), extra={"more": answers[task.id]})

    try:
        async with running(bus.host()), working(bus, "w1", handler=handle):
            for task in answers:
                await bus.submit("do it", task=task, max_attempts=1)
            await bus.submit(prompt, task="prompt")
            for n, (_, text, _) in enumerate(planted[100:]):
                await told(bus, n, text)
            last = await bus.put("type", "usage.recorded", "agent", "x", "input_tokens", "1")
            await wait_until(lambda: not after(last, cursor(bus)), 30, "all is taken")
            await bus.ended(*answers, "prompt", within=60)
            await wait_until(lambda: no_raw_documents(bus, planted), 20, "views are written")
            assert await bus.client.call("HGET", bus.keys.unclean, bus.keys.main_intake)
            await clean_intake(bus.client, bus.keys.main_intake, cursor(bus), nothing)
        await bus.client.call("DEL", bus.keys.inbox("w1"))  # the prompt, as it was handed over
        looked = await anyio.to_thread.run_sync(look, bus, planted[1:])
        assert looked.places == []
        assert len(looked.looked) > 1
        assert shown(bus, planted) == []
    finally:
        await bus.close()


def cursor(bus: Bus) -> str:
    """Up to where the shared intake was taken in."""
    return bus.folded().intakes.get(bus.keys.main_intake, START)


async def nothing() -> None: ...


async def told(bus: Bus, n: int, text: str) -> None:
    """One way of many in which a secret comes in."""
    if n % 8 == 0:
        await bus.tell("usage.recorded", agent="x", input_tokens=1, note=text)
    elif n % 8 == 1:
        await bus.tell("progress.updated", agent="x", task=f"p{n}", document={"a": [text]})
    elif n % 8 == 2:
        await bus.tell("task.submitted", text=text, priority="no such")
    elif n % 8 == 3:
        await bus.put("type", "usage.recorded", "agent", "x", "input_tokens", "1", "memo", text)
    elif n % 8 == 4:
        await bus.put("type", "no.such", "data", text)
    elif n % 8 == 5:
        document = json.dumps({"status": "working", "note": text})
        await bus.client.call("SET", bus.keys.progress("y", f"q{n}"), document)
    elif n % 8 == 6:
        await bus.tell("task.submitted", text="wait", task=f"c{n}", worker="nobody", note=text)
        await bus.tell("task.cancel_requested", task=f"c{n}", reason=text)
    else:
        await bus.put("type", "task.submitted", "text", "again", "id", f"i{n}", "note", text)
        await bus.put("type", "task.submitted", "text", "other", "id", f"i{n}", "note", text)


def no_raw_documents(bus: Bus, planted: list[tuple[str, str, str]]) -> bool:
    with contextlib.closing(SyncClient(bus.url)) as client:
        keys = client.call("KEYS", f"{bus.keys.progress('y', '')}*")
        values = [client.call("GET", key).decode() for key in keys]
    return len(values) >= 50 and not any(
        piece(secret) in value for value in values for _, _, secret in planted
    )


def piece(secret: str) -> str:
    """What of a secret is looked for: in several lines, one of them."""
    lines = secret.splitlines()
    return lines[len(lines) // 2]


def look(bus: Bus, planted: list[tuple[str, str, str]]) -> traces.Trace:
    with contextlib.closing(SyncClient(bus.url)) as client:
        opened = client_bus.Bus(bus.settings, client, bus.keys)
        return traces.search(opened, [piece(secret).encode() for _, _, secret in planted])


def shown(bus: Bus, planted: list[tuple[str, str, str]]) -> list[str]:
    """Secrets that a screen or a dead letter shows; those of prompts too."""
    with contextlib.closing(SyncClient(bus.url)) as client:
        opened = client_bus.Bus(bus.settings, client, bus.keys)
        seen: list[Any] = [letter.error for letter in dead_letters(opened)]
        for task in ("prompt", "t1", "t2", "t3"):
            whole = Story(task, story(opened, task), "completed")
            seen += (history_text(whole), msgspec.json.encode(history_view(whole)).decode())
    return [secret for _, _, secret in planted if any(piece(secret) in text for text in seen)]
