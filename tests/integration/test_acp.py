"""Any agent that speaks the Agent Client Protocol: answers, permissions by policy, usage where it
is told, cancelling with a deadline."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from events.keys import Keys
from events.tokens import TokenParts, read
from services.store.client import Client
from services.worker.drivers.acp import AcpDriver
from services.worker.drivers.agent import Choice
from tests.agents import scripted_acp
from tests.integration.test_agents import ended
from tests.integration.test_worker_session import options, working

pytestmark = pytest.mark.anyio
COMMAND = (sys.executable, str(scripted_acp.__file__))


async def end_of(client: Client, keys: Keys, part: str, **chosen: Any) -> dict[str, Any]:
    driver = AcpDriver(COMMAND, Choice(**chosen))
    async with working(client, keys, options(driver)) as engine:
        await engine.dispatch("t1", f"play {part}")
        return await ended(engine)


async def test_it_does_a_task_and_says_that_nobody_measured_it(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "well")
    assert said["result"] == "All done."
    assert "usage" not in said
    assert said["unmeasured"] == "the agent told no usage"
    assert said["seen"] == ["agent_message_chunk"]
    assert said["agent_version"] == "scripted 1.0"


async def test_usage_that_is_told_is_taken(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "usage")
    assert read(said["usage"]).usage == TokenParts(500, 40, 400)
    assert "usage" in said["seen"]


@pytest.mark.parametrize(
    ("permissions", "answers", "denials"),
    [("", "no no no", 3), ("read", "yes no no", 2), ("edit", "yes yes no", 1)],
)
async def test_permissions_are_answered_by_policy(
    client: Client, keys: Keys, permissions: str, answers: str, denials: int
) -> None:
    said = await end_of(client, keys, "permission", permissions=permissions)
    assert said["result"] == f"Let me see. {answers}"
    assert said["denials"] == denials


async def test_with_all_permissions_nothing_is_refused(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "permission", permissions="all")
    assert said["result"] == "Let me see. yes yes yes"
    assert "denials" not in said


@pytest.mark.parametrize(
    ("part", "retryable", "words"),
    [("refusal", False, "it stopped: refusal"), ("error", False, "please log in first")],
)
async def test_failures_say_why(
    client: Client, keys: Keys, part: str, retryable: bool, words: str
) -> None:
    said = await end_of(client, keys, part)
    assert said["retryable"] is retryable
    assert words in said["error"]


async def test_what_fails_before_it_has_the_prompt_costs_nothing(
    client: Client, keys: Keys
) -> None:
    async with working(client, keys, options(AcpDriver((*COMMAND, "--no-login")))) as engine:
        await engine.dispatch("t1", "play well")
        said = await ended(engine)
    assert "please log in first" in said["error"]
    assert (said["calls"], said["retryable"]) == (0, False)


async def test_silence_ends_it(client: Client, keys: Keys) -> None:
    said = await end_of(client, keys, "deaf", silence_s=0.5)
    assert "silent for" in said["error"]


@pytest.mark.parametrize("part", ["hang", "deaf"])
async def test_cancelling_has_a_deadline(client: Client, keys: Keys, part: str) -> None:
    async with working(client, keys, options(AcpDriver(COMMAND))) as engine:
        await engine.dispatch("t1", f"play {part}")
        await engine.report("task.started", "t1")
        await engine.cancel("t1")
        said = await ended(engine)
    assert said["reason"] == "by hand"
