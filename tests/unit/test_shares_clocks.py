"""Shares and clocks that differ or step: what was used before a unit was given is never used again
elsewhere at a time whose window still counts it."""

from __future__ import annotations

import msgspec

from events.policy import Limit
from projections import budgets
from projections.format import refusal_text
from projections.windows import HOUR
from services.queries import demand
from services.shares.decide import Member, Whole, decide
from tests.examples import MINUTE, NOON, SECOND, policy
from tests.given import Bus
from tests.whole import largest_sum, overshot


def new_bus(now: int, amount: int = 0, window: str = "hour") -> Bus:
    bus = Bus(policy(Limit("global", "tokens", window, amount)), at=now)
    bus.join("w1", capacity=50, heartbeat=False)
    bus.run()
    return bus


def ask(bus: Bus, tokens: int) -> None:
    bus.submit(estimate_tokens=tokens, priority="critical")
    bus.run()


def finish(bus: Bus, tokens: int) -> None:
    for task in [t for t in bus.state.tasks.values() if t.worker]:
        bus.report("task.completed", task.id, usage={"input_tokens": tokens})
    bus.run()


class Pair:
    """Two buses that divide a whole of 1,000 an hour; the north stands at ``start``."""

    def __init__(self, start: int, behind: int = 0, window: str = "hour") -> None:
        self.whole = Whole("tokens", window, 1_000, "north")
        self.buses = {
            "north": new_bus(start, 0, window),
            "south": new_bus(start - behind, 0, window),
        }
        self.north, self.south = self.buses.values()
        self.settle()

    def pass_time(self, us: int) -> None:
        for bus in self.buses.values():
            bus.now += us

    def serve(self) -> None:
        """The service looks at all, decides, and what it says arrives at once."""
        self.pass_time(1_000)
        for name, change in decide(self.whole, {n: self._member(n) for n in self.buses}).items():
            self.buses[name].send("policy.changed", share=msgspec.to_builtins(change))
        for bus in self.buses.values():
            bus.run()

    def settle(self) -> None:
        for _ in range(4):
            self.serve()

    def _member(self, name: str) -> Member:
        bus = self.buses[name]
        share = next(iter(bus.state.policy.shares), None)
        window = (bus.state, "tokens", self.whole.window, bus.now)
        use, want = demand.committed(*window), demand.wanted(*window)
        return Member(name, share, use, want, bus.now)

    def balance(self, name: str) -> int:
        (share,) = self.buses[name].state.policy.shares
        return share.balance

    def overshot(self) -> list[str]:
        logs = {name: bus.log for name, bus in self.buses.items()}
        assert largest_sum(logs, self.whole.window) == 1_000
        return overshot(logs, 1_000, self.whole.window)


def at_noon(behind: int = 0) -> Pair:
    """The north has used 900 in the hour before noon; it is noon there."""
    pair = Pair(NOON - 10 * MINUTE, behind)
    ask(pair.north, 900)
    pair.settle()
    finish(pair.north, 900)
    pair.pass_time(10 * MINUTE)
    return pair


def test_control_one_bus_alone_remembers_what_it_used_before_its_clock_went_back() -> None:
    bus = new_bus(NOON - 10 * MINUTE, 1_000)
    ask(bus, 900)
    finish(bus, 900)
    bus.now = NOON + SECOND
    bus.run()
    bus.step(-2 * MINUTE)
    ask(bus, 850)
    assert len(bus.of("task.dispatched")) == 1
    assert overshot({"north": bus.log}, 1_000, "hour") == []


def test_1_a_receiver_whose_clock_goes_back() -> None:
    pair = at_noon()
    ask(pair.south, 850)
    pair.settle()
    assert pair.balance("south") >= 850
    finish(pair.south, 10)
    pair.south.step(-2 * MINUTE)
    ask(pair.south, 850)
    assert pair.overshot() == []


def test_1_a_small_step_that_no_event_tells_of() -> None:
    pair = at_noon()
    ask(pair.south, 850)
    pair.settle()
    finish(pair.south, 10)
    pair.south.now -= 5 * SECOND
    ask(pair.south, 850)
    assert pair.overshot() == []


def test_2_a_giver_whose_clock_goes_back_after_it_gave() -> None:
    pair = at_noon(behind=2 * MINUTE)
    ask(pair.south, 850)
    pair.serve()  # the north gives at noon
    pair.north.step(-3 * MINUTE)
    pair.north.join("w2")
    pair.north.run()
    pair.settle()
    assert pair.overshot() == []


def test_3_a_busy_giver_and_a_slower_clock() -> None:
    """60 rounds in which the north writes something each second; the south is 1 s behind."""
    pair = at_noon(behind=SECOND)
    ask(pair.south, 850)
    for _ in range(60):
        pair.pass_time(SECOND)
        pair.north.submit(estimate_tokens=1)
        pair.north.run()
        pair.serve()
    assert pair.balance("south") >= 850


def test_4_a_giver_whose_clock_went_back_gives_what_it_used_later_on() -> None:
    pair = Pair(NOON + SECOND)
    ask(pair.north, 900)
    pair.settle()
    finish(pair.north, 900)  # of the hour after noon
    pair.north.step(-2 * MINUTE)
    pair.south.step(-2 * MINUTE)
    ask(pair.south, 850)
    pair.settle()
    finish(pair.south, 10)
    pair.pass_time(5 * MINUTE)  # past noon again
    ask(pair.south, 800)
    assert pair.overshot() == []


def test_5_an_overrun_is_made_up_for_by_who_has_room() -> None:
    """It cannot be refused, and until shares have moved the other bus does not know of it."""
    pair = Pair(NOON)
    ask(pair.north, 100)
    pair.settle()
    finish(pair.north, 2_000)
    pair.settle()
    assert pair.balance("south") == 0
    ask(pair.south, 300)
    assert pair.south.of("task.dispatched") == []


def test_6_a_rolling_window_whose_clock_goes_back() -> None:
    """What was used at noon is in no window of 11:50: that has room on each bus, not on all."""
    pair = Pair(NOON, window="90m")
    ask(pair.north, 500)
    finish(pair.north, 500)
    pair.north.step(-10 * MINUTE)
    ask(pair.north, 500)
    finish(pair.north, 500)
    pair.pass_time(10 * SECOND)
    ask(pair.south, 500)
    assert pair.overshot() == []
    assert len(pair.south.of("task.dispatched")) == 1


def test_7_who_waits_for_the_clock_is_told_and_goes_on_with_it() -> None:
    pair = Pair(NOON)
    pair.north.step(-5 * SECOND)
    ask(pair.north, 100)
    assert pair.north.of("task.dispatched") == []
    refused = budgets.refusal(pair.north.state, ("global",), 3, (100, 0, 1), pair.north.now)
    assert refused is not None
    said = refusal_text(refused, 3, 100, pair.north.now)
    assert said == "the clock went back: tokens/hour overall, a share, admits nothing for 4.9 s"
    pair.north.wait(6)
    assert len(pair.north.of("task.dispatched")) == 1


def test_8_an_operator_may_say_that_a_clock_is_right() -> None:
    pair = Pair(NOON)
    pair.north.step(-2 * HOUR)
    ask(pair.north, 100)
    assert pair.north.of("task.dispatched") == []
    pair.north.send("clock.confirmed")
    pair.north.run()
    assert len(pair.north.of("task.dispatched")) == 1
