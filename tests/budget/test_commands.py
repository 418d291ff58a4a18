"""limits, policy, prices, alerts, metrics --forecast, replay --verify, doctor --deep: on a bus."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from events.envelope import text_of
from services.cli.limits import amount_of
from tests.integration.test_engine_ground import Bus, limit, running
from tests.wait import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Asb = Callable[..., Awaitable[Said]]


@pytest.fixture
def bus(redis_url: str, namespace: str) -> Bus:
    return Bus(redis_url, namespace, limits=(limit("global", "tokens", "month", 1_000),))


@pytest.fixture
def asb(bus: Bus) -> Asb:
    async def run(*arguments: str) -> Said:
        command = [sys.executable, "-m", "services.cli.main", "--redis", bus.url]
        command += ["--namespace", bus.keys.namespace, *arguments]
        done = await anyio.run_process(command, check=False, cwd=ROOT)
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


async def test_limits_are_changed_on_a_running_bus_and_hold_at_once(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        await bus.tell("usage.recorded", agent="codex", worker="w1", total_tokens=700)
        said = await asb("limits", "set", "worker:w1", "tokens", "5h", "1K", "--reason", "a test")
        assert said.code == 0, said.err
        assert "worker:w1" in said.out
        assert "70.0%" in said.out  # a new limit sees history at once
        assert (await asb("limits", "set", "global", "money", "day", "0.25")).code == 0
        shown = (await asb("limits", "--json")).json
        amounts = {(x["scope"], x["unit"], x["window"]): x["amount"] for x in shown["limits"]}
        assert amounts["global", "money", "day"] == 250_000_000
        again = await asb("limits", "remove", "global", "money", "day")
        assert again.code == 0
        none = await asb("limits", "remove", "global", "money", "day")
        assert none.code == 1
        assert "there is no limit on money/day of global" in none.err
        assert (await asb("limits", "set", "global", "tokens", "fortnight", "1")).code == 2
    changes = bus.events("policy.changed")
    assert text_of(changes[1], "reason") == "a test"
    await bus.close()


async def test_saving_guard_priority_alerts_and_prices_are_policy_too(bus: Bus, asb: Asb) -> None:
    async with running(bus.host()):
        for command in (
            ("limits", "saving", "SOFT", "--model", "haiku"),
            ("limits", "guard", "cancel", "--step", "25"),
            ("limits", "min-priority", "high"),
            ("limits", "alert", "tokens", "day", "2M", "--at", "50"),
            ("policy", "price", "gpt-x", "--input", "1.25", "--output", "10"),
        ):
            said = await asb(*command)
            assert said.code == 0, said
        policy = (await asb("policy", "show", "--json")).json
        price = (await asb("prices", "gpt-x", "--json")).json
        listed = (await asb("prices", "claude-sonnet-4-5", "--json")).json["prices"][0]
        unknown = (await asb("prices", "nobody-knows", "--json")).json["prices"][0]
    assert policy["saving"]["start"] == "SOFT"
    assert policy["guard"] == {"step_percent": 25, "action": "cancel"}
    assert policy["min_priority"] == "high"
    assert policy["alert_budgets"] == [
        {"unit": "tokens", "window": "day", "amount": 2_000_000, "threshold_percent": 50}
    ]
    assert price["book"] == 2
    assert price["prices"][0]["source"] == "override"
    assert price["prices"][0]["dollars_per_million"]["output"] == "10"
    assert listed["source"].startswith("genai-prices ")
    assert unknown["source"] == "unknown"
    await bus.close()


async def test_alerts_forecast_and_proof_are_a_command_away(bus: Bus, asb: Asb) -> None:
    host = bus.host()
    async with running(host):
        await bus.tell("usage.recorded", agent="codex", model="sonnet", total_tokens=850)
        await wait_until(lambda: bus.events("alert.raised"))
        listed = await asb("alerts", "--json")
        shown = await asb("alerts")
        ahead = (await asb("metrics", "--forecast", "--json")).json

        async def stands() -> bool:
            view = await bus.client.call("GET", bus.keys.token_usage)
            return view is not None and json.loads(view)["as_of"] == host.state.meta.log_id

        await wait_until(stands, what="the views of the end")
        proof = await asb("replay", "--verify", "--json")
        deep = await asb("doctor", "--deep", "--json")
    assert json.loads(listed.out)["percentage"] == 85
    assert "WARNING" in shown.out
    assert ahead["rate"]["tokens"] == 850 * 6
    assert ahead["limits"][0]["before_reset"]
    assert proof.code == 0, proof
    assert proof.json["verified"]
    names = {check["name"]: check["verdict"] for check in deep.json["checks"]}
    assert names["windows, all buckets"] == names["view of token usage"] == "ok"
    await bus.close()


@pytest.mark.parametrize(
    ("unit", "text", "amount"),
    [
        ("tokens", "500K", 500_000),
        ("tokens", "5M", 5_000_000),
        ("tokens", "1,234", 1_234),
        ("money", "$4.50", 4_500_000_000),
        ("money", "0.1", 100_000_000),
        ("tasks", "0", 0),
    ],
)
async def test_amounts_are_read_as_people_write_them(unit: str, text: str, amount: int) -> None:
    assert amount_of(unit, text) == amount
