"""Several buses divide a whole, whatever happens in which order: over all logs folded together it
is never overshot.

Engines, clocks and services are those of the code, without Redis. Services read one bus at a time
and decide on what they read, however old; what they send waits at an intake, may come twice or
never. Clocks of servers differ, and step either way while tasks run. A failover takes from a log
what no replica had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from events.commands.budgets import ShareChange
from events.policy import Limit
from projections.windows import MINUTE
from services.queries import demand
from services.shares.decide import Member, Whole, decide
from tests.budget.ground import say
from tests.examples import NOON, SECOND, policy
from tests.given import Bus, replayed
from tests.strategies import examples
from tests.whole import largest_sum, overshot

NAMES = ("north", "south", "west")
WHOLE = 1_000
ANY_BUS = st.sampled_from(NAMES)
ANY_SERVICE = st.sampled_from((0, 1))
LOOK = st.tuples(st.just("look"), ANY_SERVICE, ANY_BUS)
DECIDE = st.tuples(st.just("decide"), ANY_SERVICE)
ARRIVE = st.tuples(st.just("arrive"), st.integers(0, 9), st.booleans())
RUN = st.tuples(st.just("run"), ANY_BUS)
TOKENS = st.sampled_from((30, 100, 300, 500, 900))
SUBMIT = st.tuples(st.just("submit"), ANY_BUS, TOKENS, st.integers(1, 3))
STEP = st.sampled_from((-1, -5, -120, -120, 1, 120, 120, -75 * 60, 40 * 60))  # of a clock, seconds
STEPS = st.one_of(
    *(LOOK, DECIDE, ARRIVE, RUN, SUBMIT, SUBMIT),
    *[st.tuples(st.just("settle"), st.booleans())] * 2,
    st.tuples(st.just("late"), ANY_BUS, TOKENS),
    *[st.tuples(st.just("serve"), ANY_BUS, TOKENS, st.sampled_from((0, 100, 100)))] * 3,
    st.tuples(st.just("kill"), ANY_SERVICE),
    st.tuples(st.just("complete"), ANY_BUS, st.sampled_from((0, 50, 100, 100))),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 60))),
    st.tuples(st.just("fail_over"), ANY_BUS),
    st.tuples(st.just("step"), ANY_BUS, STEP),
)


class Server:
    """A bus on a server with a clock of its own; ``safe`` entries of its log are replicated."""

    def __init__(self, window: str, behind: int) -> None:
        nothing = policy(Limit("global", "tokens", window, 0))  # until it has a share
        self.bus = Bus(nothing, at=NOON - 8 * MINUTE - behind)
        self.bus.join("w1", capacity=50, heartbeat=False)
        self.bus.run()
        self.safe = len(self.bus.log)

    def fail_over(self) -> None:
        """Another server takes over, with what was replicated."""
        bus = self.bus
        del bus.log[self.safe :], bus.events[self.safe :]
        bus.state = replayed(bus.log)
        bus.waiting.clear()
        bus.inputs.found_us = 0
        bus.found_since = bus.elapsed


class DividedWhole:
    """See the module."""

    def __init__(self, window: str, behind: Sequence[int], seen: Counter[str]) -> None:
        self.window, self.seen = window, seen
        self.whole = Whole("tokens", self.window, WHOLE, "north")
        self.servers = {
            name: Server(window, minutes * MINUTE)
            for name, minutes in zip(NAMES, behind, strict=True)
        }
        self.read: list[dict[str, Member | None]] = [dict.fromkeys(NAMES) for _ in range(2)]
        self.sent: list[tuple[str, ShareChange]] = []

    def play(self, step: tuple[Any, ...]) -> None:
        self.pass_time(1)
        getattr(self, step[0])(*step[1:])
        assert sum(self.balances()) <= WHOLE

    def pass_time(self, us: int) -> None:
        for server in self.servers.values():
            server.bus.now += us

    # -- the services ----------------------------------------------------------------------------

    def look(self, service: int, name: str) -> None:
        """A service reads a log, once what it gave is replicated."""
        server = self.servers[name]
        state, now = server.bus.state, server.bus.now
        share = next(iter(state.policy.shares), None)
        self.read[service][name] = Member(
            name,
            share,
            demand.committed(state, "tokens", self.window, now),
            demand.wanted(state, "tokens", self.window, now),
            now,
            lasting=len(server.bus.log) == server.safe,
        )

    def decide(self, service: int) -> None:
        """What it sends may get lost, or stay under way for long."""
        self.sent += decide(self.whole, self.read[service]).items()

    def kill(self, service: int) -> None:
        self.read[service] = dict.fromkeys(NAMES)

    def arrive(self, n: int, twice: bool) -> None:
        if not self.sent:
            return
        n %= len(self.sent)
        name, change = self.sent[n] if twice else self.sent.pop(n)
        self.servers[name].bus.send("policy.changed", share=msgspec.to_builtins(change))

    def settle(self, replicated: bool) -> None:
        """All goes well for a while, but perhaps for the replicas."""
        for _ in range(4):
            self.pass_time(1)
            for name in NAMES:
                if replicated:
                    self.replicate(name)
                self.look(0, name)
            self.decide(0)
            self.all_arrive()

    def serve(self, name: str, tokens: int, percent: int) -> None:
        """A bus asks for more, gets it, and uses it."""
        self.submit(name, tokens, 1)
        self.settle(True)
        self.complete(name, percent)

    def late(self, name: str, tokens: int) -> None:
        """Much begins on a bus while what was decided before is on its way."""
        for each in NAMES:
            self.look(1, each)
        self.decide(1)
        self.submit(name, tokens, 2)
        self.all_arrive()

    def all_arrive(self) -> None:
        while self.sent:
            self.arrive(0, False)
        for name in NAMES:
            self.servers[name].bus.run()

    # -- the buses -------------------------------------------------------------------------------

    def submit(self, name: str, tokens: int, number: int) -> None:
        for _ in range(number):
            self.servers[name].bus.submit(estimate_tokens=tokens, priority="critical")
        self.run(name)

    def run(self, name: str) -> None:
        self.servers[name].bus.run()

    def complete(self, name: str, percent: int) -> None:
        """All that runs ends, having used no more than it held."""
        bus = self.servers[name].bus
        for task in [t for t in bus.state.tasks.values() if t.worker]:
            used = max(1, task.hold_tokens * percent // 100)
            bus.report("task.completed", task.id, usage={"input_tokens": used})
        bus.run()

    def wait(self, minutes: int) -> None:
        for server in self.servers.values():
            server.bus.wait(60 * minutes)

    def replicate(self, name: str) -> None:
        server = self.servers[name]
        server.safe = len(server.bus.log)

    def fail_over(self, name: str) -> None:
        self.servers[name].fail_over()

    def step(self, name: str, seconds: int) -> None:
        """A large step is noticed by the engine, as its host would; a small one by nobody."""
        bus = self.servers[name].bus
        if abs(seconds) < 10:
            bus.now += seconds * SECOND
        else:
            bus.step(seconds * SECOND)
        self.seen["steps back"] += seconds < 0

    # -- what holds ------------------------------------------------------------------------------

    def balances(self) -> Iterator[int]:
        for server in self.servers.values():
            yield from (share.balance for share in server.bus.state.policy.shares)

    def end(self) -> None:
        logs = {name: server.bus.log for name, server in self.servers.items()}
        assert overshot(logs, WHOLE, self.window) == []
        assert largest_sum(logs, self.window) <= WHOLE
        ran = [len(server.bus.of("task.dispatched")) for server in self.servers.values()]
        self.seen["dispatched"] += sum(ran)
        self.seen["dispatched on two buses"] += sum(map(bool, ran)) > 1
        for server in self.servers.values():
            for share in server.bus.state.policy.shares:
                self.seen["given"] += len(share.given)
                self.seen["taken"] += len(share.taken)


# By chance these come too seldom.
GIVEN_BEHIND = [
    *(("wait", 10), ("serve", "north", 900, 100), ("step", "north", -75 * 60)),
    ("serve", "south", 900, 100),
]
TAKEN_BEHIND = [("serve", "north", 900, 100), ("wait", 10), ("serve", "south", 900, 100)]


@pytest.mark.parametrize("window", ["hour", "90m"])
def test_a_whole_over_several_buses_is_never_overshot(
    window: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run in which little happened has proved little, so what happened is counted."""
    seen: Counter[str] = Counter()

    @examples(200, proving=10_000)
    @given(
        st.tuples(*[st.sampled_from((0, 0, 0, 1, 7, 50))] * len(NAMES)),
        st.lists(STEPS, min_size=30, max_size=60),
    )
    @example((0, 0, 0), GIVEN_BEHIND)
    @example((0, 7, 0), TAKEN_BEHIND)
    def days(behind: tuple[int, ...], steps: list[tuple[Any, ...]]) -> None:
        divided = DividedWhole(window, behind, seen)
        for step in steps:
            divided.play(step)
        divided.end()

    days()
    with capsys.disabled():
        say(f"a whole per {window}: {dict(seen)}")
    assert min(seen["given"], seen["taken"], seen["dispatched on two buses"]) > 20
