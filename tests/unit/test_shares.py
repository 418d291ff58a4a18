"""Shares of a whole: what one bus's engine lets a change do, and what is decided over all buses."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from events.policy import Limit, Share
from projections import budgets
from services.queries import demand
from services.shares.decide import Member, Whole, decide, fair_parts
from tests.examples import MINUTE, policy
from tests.given import Bus

HOUR = {"unit": "tokens", "window": "hour"}
WHOLE = Whole("tokens", "hour", 1_000, "north")


def change(bus: Bus, name: str, **fields: Any) -> list[str]:
    """Send a change of the share; what the intake refused."""
    before = len(bus.refused)
    told = {**HOUR, "bus": name, "home": "north", "whole": 1_000, **fields}
    bus.send("policy.changed", share=told)
    bus.run()
    return [refused.error for refused in bus.refused[before:]]


def north(**opening: Any) -> Bus:
    """The home of the whole."""
    bus = Bus(policy(Limit("worker", "tasks", "hour", 100)))
    bus.join("w1", capacity=10)
    assert change(bus, "north", **opening) == []
    return bus


def south() -> Bus:
    bus = Bus(policy(Limit("global", "tokens", "hour", 500_000)))
    bus.join("w1", capacity=10)
    assert change(bus, "south") == []
    return bus


def share(bus: Bus) -> Share:
    (known,) = bus.state.policy.shares
    return known


def share_in(known: dict[str, Member]) -> Share:
    """The share of the north."""
    here = known["north"].share
    assert here is not None
    return here


def amount(bus: Bus) -> int:
    (limit,) = [x for x in bus.state.policy.limits if x.scope == "global"]
    return limit.amount


def member(bus: Bus, name: str, **changes: Any) -> Member:
    """A bus as its log says."""
    known = next(iter(bus.state.policy.shares), None)
    seen = Member(
        name,
        known,
        demand.committed(bus.state, "tokens", "hour", bus.now),
        demand.wanted(bus.state, "tokens", "hour", bus.now),
        bus.now,
    )
    return replace(seen, **changes)


# -- one bus's engine ------------------------------------------------------------------------------


def test_the_whole_opens_at_its_home_and_others_join_with_nothing() -> None:
    assert (amount(north()), amount(south())) == (1_000, 0)
    assert amount(north(give={"south": 300})) == 700


def test_what_is_given_is_no_more_than_what_is_not_used_and_held() -> None:
    bus = north()
    bus.submit(estimate_tokens=400, priority="critical")
    bus.run()
    assert change(bus, "north", give={"south": 900}) == []
    assert (amount(bus), share(bus).given) == (400, {"south": 600})


def test_told_twice_or_late_it_changes_nothing() -> None:
    bus = north()
    change(bus, "north", give={"south": 300})
    written = len(bus.log)
    change(bus, "north", give={"south": 300})
    change(bus, "north", give={"south": 100})
    assert (amount(bus), len(bus.log)) == (700, written)
    other = south()
    for total in (300, 300, 100):
        change(other, "south", take={"north": total})
    assert (amount(other), share(other).taken) == (300, {"north": 300})


def test_what_others_took_and_this_log_lost_is_gone_however_much_is_used() -> None:
    bus = north()
    bus.submit(estimate_tokens=900, priority="critical")
    bus.run()
    change(bus, "north", gave={"south": 300})
    assert amount(bus) == 700
    change(bus, "north", gave={"south": 2_000})
    assert (amount(bus), share(bus).balance) == (0, -1_000)


def test_nothing_is_taken_before_the_clock_is_where_it_was_given() -> None:
    bus = south()
    later = bus.now + 5 * MINUTE
    change(bus, "south", take={"north": 300}, not_before=later)
    assert amount(bus) == 0
    bus.now = later
    change(bus, "south", take={"north": 300}, not_before=later)
    assert amount(bus) == 300


def test_a_whole_is_lowered_as_far_as_its_home_has_it() -> None:
    bus = north(give={"south": 700})
    bus.submit(estimate_tokens=100, priority="critical")
    bus.run()
    change(bus, "north", whole=500)
    assert (share(bus).whole, amount(bus)) == (800, 100)
    change(bus, "north", whole=2_000)
    assert (share(bus).whole, amount(bus)) == (2_000, 1_300)


def test_a_share_is_not_changed_by_hand() -> None:
    bus = south()
    limit = {"scope": "global", **HOUR}
    bus.send("policy.changed", set_limits=[{**limit, "amount": 5_000}])
    bus.send("policy.changed", remove_limits=[limit])
    bus.run()
    assert amount(bus) == 0
    assert all("share of south" in refused.error for refused in bus.refused)
    bus.send("policy.changed", set_limits=[{**limit, "window": "day", "amount": 5_000}])
    bus.run()
    assert len(bus.refused) == 2


def test_what_is_no_change_of_this_share_is_refused() -> None:
    bus = south()
    wrongs: tuple[dict[str, Any], ...] = (
        {"bus": "west"},
        {"home": "south"},
        {"window": "year"},
        {"take": {"north": -1}},
        {"take": {"south": 5}},
        {"take": {"no rth": 5}},
        {"takes": {}},
    )
    for wrong in wrongs:
        (error,) = change(bus, wrong.pop("bus", "south"), **wrong)
        assert error
    assert amount(bus) == 0
    bus.send("policy.changed", intake="asb:intake:w1", share={**HOUR, "bus": "south"})
    bus.run()
    assert amount(bus) == 0


def test_a_task_waits_for_a_share_that_may_grow_and_not_for_more_than_the_whole() -> None:
    bus = south()
    fits = bus.submit(estimate_tokens=500)
    never = bus.submit(estimate_tokens=5_000)
    bus.run()
    assert [event.task for event in bus.of("task.deferred")] == [never]
    change(bus, "south", take={"north": 600})
    assert [event.task for event in bus.of("task.dispatched")] == [fits]


def test_a_guess_is_bounded_by_the_whole_not_by_the_share() -> None:
    bus = south()
    change(bus, "south", take={"north": 100})
    bus.submit("x" * 400)  # its first guess is 1,100 tokens, of a whole of 1,000
    bus.run()
    assert bus.of("task.dispatched") == []
    change(bus, "south", take={"north": 600})
    assert [event.hold_tokens for event in bus.of("task.dispatched")] == [500]


# -- what a bus wants ------------------------------------------------------------------------------


def test_the_least_limit_is_the_inverse_of_the_gate() -> None:
    for priority in range(4):
        for asked in (0, 1, 89, 90, 94, 95, 99, 100, 12_345):
            least = budgets.least_limit(priority, asked)
            assert budgets.gate(priority, least) >= asked
            assert budgets.gate(priority, least - 1) < asked


def test_a_bus_wants_what_its_free_workers_could_start() -> None:
    bus = south()
    assert demand.wanted(bus.state, "tokens", "hour", bus.now) == 0
    for _ in range(30):
        bus.submit(estimate_tokens=10, priority="critical")
    bus.run()
    assert demand.wanted(bus.state, "tokens", "hour", bus.now) == 100  # of ten free slots
    change(bus, "south", take={"north": 50})
    assert demand.committed(bus.state, "tokens", "hour", bus.now) == 50
    assert demand.wanted(bus.state, "tokens", "hour", bus.now) == 100


# -- over all buses --------------------------------------------------------------------------------


def test_others_join_before_the_whole_is_opened() -> None:
    home, other = Bus(policy()), Bus(policy())
    first = decide(WHOLE, {"north": member(home, "north"), "south": member(other, "south")})
    assert list(first) == ["south"]
    second = decide(WHOLE, {"north": member(home, "north"), "south": member(south(), "south")})
    assert list(second) == ["north"]


def test_nobody_joins_while_a_bus_cannot_be_read() -> None:
    assert decide(WHOLE, {"north": member(Bus(policy()), "north"), "south": None}) == {}


def test_a_whole_opens_less_what_others_have_used() -> None:
    other = Member("south", Share("tokens", "hour", "south", "north", 1_000), 300, 300)
    opened = decide(WHOLE, {"north": Member("north", None, 0, 0), "south": other})
    assert opened["north"].give == {"south": 300}


def test_what_is_given_is_taken_whoever_gave_it_and_when() -> None:
    giver = north()
    change(giver, "north", give={"south": 300})
    known = {"north": member(giver, "north"), "south": member(south(), "south")}
    told = decide(WHOLE, known)
    assert told["south"].take == {"north": 300}
    assert told["south"].not_before == giver.state.meta.at
    slower = {**known, "south": replace(known["south"], now=giver.state.meta.at - 1)}
    assert "south" not in decide(WHOLE, slower)


def test_nothing_is_taken_that_a_log_may_lose() -> None:
    giver = north(give={"south": 300})
    known = {"north": member(giver, "north"), "south": member(south(), "south")}
    known["north"] = replace(known["north"], lasting=False)
    assert "south" not in decide(WHOLE, known)


def test_who_was_given_something_takes_it_before_it_is_given_more() -> None:
    giver = north(give={"south": 300})
    known = {"north": member(giver, "north"), "south": member(south(), "south", wanted=900)}
    assert list(decide(WHOLE, known)) == ["south"]
    share_of_south = known["south"].share
    assert share_of_south is not None
    known["south"] = replace(known["south"], share=replace(share_of_south, taken={"north": 300}))
    assert decide(WHOLE, known)["north"].give["south"] >= 900


def test_who_wants_more_gets_it_where_there_is_room_and_a_part_of_the_rest() -> None:
    having = Share("tokens", "hour", "north", "north", 1_000)
    joined = Share("tokens", "hour", "south", "north", 1_000)
    quiet = {"north": Member("north", having, 100, 100), "south": Member("south", joined, 0, 0)}
    assert decide(WHOLE, quiet)["north"].give == {"south": 900 * 21 // 142}  # no bus stands at 0
    busy = quiet | {"south": Member("south", joined, 0, 400)}
    assert decide(WHOLE, busy)["north"].give == {"south": 400 + 500 * 421 // 542}


def test_nothing_moves_while_no_bus_is_nearer_to_its_share_than_all_are_to_the_whole() -> None:
    def moved(use: int, here: int) -> bool:
        home = Share("tokens", "hour", "north", "north", 1_000, given={"south": here})
        away = Share("tokens", "hour", "south", "north", 1_000, taken={"north": here})
        known = {"north": Member("north", home, 0, 0), "south": Member("south", away, use, use)}
        return bool(decide(WHOLE, known))

    assert not moved(use=79, here=100)
    assert moved(use=80, here=100)  # a warning here, and the whole is far from one
    assert not moved(use=970, here=980)  # the whole is as near


def test_who_is_full_gives_nothing_and_where_all_want_more_each_gets_as_much() -> None:
    having = Share("tokens", "hour", "north", "north", 1_000)
    joined = Share("tokens", "hour", "south", "north", 1_000)
    full = {"north": Member("north", having, 1_000, 9_000), "south": Member("south", joined, 0, 5)}
    assert decide(WHOLE, full) == {}
    both = full | {"north": Member("north", having, 0, 9_000)}
    assert decide(WHOLE, both)["north"].give == {"south": 5}
    greedy = {**both, "south": Member("south", joined, 0, 9_000)}
    assert decide(WHOLE, greedy)["north"].give == {"south": 500}


def test_an_overrun_on_one_bus_is_made_up_for_by_another() -> None:
    having = Share("tokens", "hour", "north", "north", 1_000, given={"south": 500})
    over = Share("tokens", "hour", "south", "north", 1_000, taken={"north": 500})
    known = {"north": Member("north", having, 0, 0), "south": Member("south", over, 800, 800)}
    assert decide(WHOLE, known)["north"].give["south"] >= 500 + 300


def test_a_log_that_lost_what_it_gave_is_told_by_those_who_took_it() -> None:
    having = Share("tokens", "hour", "north", "north", 1_000)
    took = Share("tokens", "hour", "south", "north", 1_000, taken={"north": 300})
    known = {"north": Member("north", having, 0, 0), "south": Member("south", took, 0, 0)}
    assert decide(WHOLE, known)["north"].gave == {"south": 300}


def test_a_log_that_began_anew_gets_what_it_had_and_no_more() -> None:
    """It had taken 500 and given 200 of that on."""
    home = Share("tokens", "hour", "north", "north", 1_000, {"south": 500}, {"south": 200})
    known = {
        "north": Member("north", home, 0, 0),
        "south": Member("south", None, 0, 0, now=1),
    }
    bus = Bus(policy())
    told = decide(WHOLE, known)["south"]
    bus.send("policy.changed", share={**HOUR, "bus": "south", "home": "north", "whole": 1_000,
                                      "gave": told.gave, "take": told.take})  # fmt: skip
    bus.run()
    assert amount(bus) == 300


def test_a_whole_that_shall_be_less_is_lowered_and_what_others_have_comes_home() -> None:
    home = Share("tokens", "hour", "north", "north", 1_000, given={"south": 800})
    away = Share("tokens", "hour", "south", "north", 1_000, taken={"north": 800})
    less = Whole("tokens", "hour", 500, "north")
    known = {"north": Member("north", home, 50, 50), "south": Member("south", away, 100, 100)}
    told = decide(less, known)
    assert told["north"].whole == 500
    assert told["south"].give["north"] >= 350


def test_a_bus_that_leaves_gives_back_what_it_does_not_use() -> None:
    home = Share("tokens", "hour", "north", "north", 1_000, given={"south": 800})
    away = Share("tokens", "hour", "south", "north", 1_000, taken={"north": 800})
    known = {"north": Member("north", home, 0, 0), "south": Member("south", away, 300, 900)}
    less = replace(WHOLE, leaving=frozenset({"south"}))
    assert decide(less, known)["south"].give == {"north": 500}
    assert decide(less, {"north": Member("north", replace(home, given={}), 0, 0)}) == {}
    known["south"] = Member("south", None, 0, 0)
    known["north"] = Member("north", replace(home, given={}), 0, 0)
    assert decide(less, known) == {}  # it does not join again


def test_a_bus_that_has_left_has_a_limit_of_its_own() -> None:
    bus = south()
    assert change(bus, "south", take={"north": 300}, leaves=True) == []
    assert share(bus).balance == 300  # not yet
    known = {"north": member(north(give={"south": 300}), "north"), "south": member(bus, "south")}
    less = replace(WHOLE, leaving=frozenset({"south"}))
    back = decide(less, known)["south"]
    assert (back.give, back.leaves) == ({"north": 300}, False)
    bus.send("policy.changed", share=msgspec.to_builtins(back))
    bus.run()
    under_way = known | {"south": member(bus, "south")}
    assert "south" not in decide(less, under_way)  # else nobody could take what it gave
    home = replace(share_in(known), taken={"south": 300})
    done = decide(less, {**under_way, "north": replace(known["north"], share=home)})["south"]
    bus.send("policy.changed", share=msgspec.to_builtins(done))
    bus.send("policy.changed", set_limits=[{"scope": "global", **HOUR, "amount": 77}])
    bus.run()
    assert (bus.state.policy.shares, amount(bus), bus.refused) == ((), 77, [])


def test_fair_parts_are_never_more_than_there_is() -> None:
    assert fair_parts(100, {"x": (0, 10), "y": (0, 10)}) == {"x": 50, "y": 50}
    assert fair_parts(100, {"x": (0, 10), "y": (0, 10)}, ["y"]) == {"x": 90, "y": 10}
    assert fair_parts(100, {"x": (0, 60), "y": (0, 0)}) == {"x": 98, "y": 1}
    assert fair_parts(100, {"x": (0, 200), "y": (0, 10)}) == {"x": 90, "y": 10}
    assert fair_parts(100, {"x": (70, 200), "y": (0, 200)}) == {"x": 70, "y": 30}
    assert fair_parts(100, {"x": (70, 70), "y": (60, 60)}) == {"x": 70, "y": 60}
