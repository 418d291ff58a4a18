"""What somebody who asks for an agent by name is told at once."""

from __future__ import annotations

from services.queries.joined import nobody_is
from tests.examples import policy
from tests.given import Bus


def test_who_asks_for_an_agent_that_nobody_is_learns_it_at_once() -> None:
    bus = Bus(policy())
    assert nobody_is(bus.state, "nobody") == "no worker of nobody has joined: it waits for one"
    bus.join("w1")
    bus.run()
    assert nobody_is(bus.state, "nobody").startswith("no worker says it is nobody: one that serves")
    bus.join("w2", agent="claude")
    bus.run()
    assert nobody_is(bus.state, "claude") == ""
