"""Which bus gives what of its share to which, and what stands out: told in totals of all time, so
that any number of these services, however late, do no harm (ADR 23). PURE."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from msgspec.structs import replace

from events.commands.budgets import ShareChange
from events.policy import Share
from projections import budgets

GRAIN_PERCENT = 1  # of the whole: less is moved only where it keeps tasks waiting
LITTLE_PERCENT = 2  # of the whole: weighs what is left beside what a bus wants


class Whole(msgspec.Struct, frozen=True):
    """What several buses divide: so much of a unit in each window, kept on the log of ``home``.
    ``leaving``: those that shall give back all they have."""

    unit: str
    window: str
    amount: int
    home: str
    leaving: frozenset[str] = frozenset()


class Member(msgspec.Struct, frozen=True):
    """A bus, as its log says. ``share``: None before it joined. ``committed``: used and held in the
    window. ``wanted``: what its limit had to be for its waiting tasks to start, at least
    ``committed``. ``now``: its server's time, µs. ``lasting``: no failover can lose what was read
    of its log."""

    name: str
    share: Share | None
    committed: int
    wanted: int
    now: int = 0
    lasting: bool = True

    def offers(self, name: str) -> tuple[int, int]:
        """What ``name`` may take of it by now, in all, and from when on."""
        if self.share is None or not self.lasting:
            return 0, 0
        return self.share.given.get(name, 0), self.share.given_at.get(name, 0)

    def takes(self, giver: Member) -> int:
        """How much of what ``giver`` gave to it it has not taken yet."""
        if self.share is None or giver.share is None or giver is self:
            return 0
        given = giver.share.given.get(self.name, 0)
        return max(0, given - self.share.taken.get(giver.name, 0))


def decide(whole: Whole, members: Mapping[str, Member | None]) -> dict[str, ShareChange]:
    """What to tell each bus now; nothing where all is well. None: a bus that cannot be read."""
    known = {name: member for name, member in members.items() if member is not None}
    new = [
        name for name, member in known.items() if member.share is None and name not in whole.leaving
    ]
    if new and len(known) == len(members):  # what one has taken and given stands on all others
        return _joins(whole, known, new)
    known = {name: member for name, member in known.items() if member.share is not None}
    changes = {name: _facts(whole, name, known) for name in known}
    for giver, receiver, total in _moves(whole, known):
        give = changes[giver].give
        changes[giver] = replace(changes[giver], give={**give, receiver: total})
    return {name: x for name, x in changes.items() if _says_more(x, known[name])}


# -- what the logs say of each other ---------------------------------------------------------------


def _facts(whole: Whole, name: str, known: Mapping[str, Member]) -> ShareChange:
    """What ``name`` may take, what others have taken from it, and what the whole is."""
    others = [member for member in known.values() if member.name != name]
    gave = {o.name: o.share.taken.get(name, 0) for o in others if o.share is not None}
    offers = {o.name: o.offers(name) for o in others}
    here = known[name]
    taken = here.share.taken if here.share is not None else {}
    fresh = {  # earlier its windows may still count what was used of that before it was given
        bus: at
        for bus, (total, at) in offers.items()
        if total > taken.get(bus, 0) and at <= here.now
    }
    return ShareChange(
        whole.unit,
        whole.window,
        name,
        whole.home,
        _amount(whole, name, known),
        gave={bus: total for bus, total in gave.items() if total},
        take={bus: offers[bus][0] for bus in fresh},
        not_before=max(fresh.values(), default=0),
        leaves=name in whole.leaving and _is_done(here, known),
    )


def _is_done(member: Member, known: Mapping[str, Member]) -> bool:
    """Whether it has nothing, and nothing is under way to it or from it."""
    if member.share is None or member.share.balance:
        return False
    return not any(member.takes(other) or other.takes(member) for other in known.values())


def _amount(whole: Whole, name: str, known: Mapping[str, Member]) -> int:
    """The whole as ``name`` is to know it: what is asked for at home, elsewhere what home says."""
    home = known.get(whole.home)
    if name == whole.home or home is None or home.share is None:
        return whole.amount
    return home.share.whole


def _says_more(change: ShareChange, member: Member) -> bool:
    """Whether ``change`` would change anything."""
    share = member.share
    if share is None:
        return True
    gave = any(total > share.given.get(bus, 0) for bus, total in change.gave.items())
    lowers = change.whole < share.whole and share.bus == share.home
    whole = share.balance > member.committed if lowers else change.whole != share.whole
    return gave or whole or change.leaves or bool(change.take or change.give)


def _joins(whole: Whole, known: Mapping[str, Member], new: list[str]) -> dict[str, ShareChange]:
    """Others join first, with what their home gave them before, if it ever did; then the home
    opens the whole, less what is used and held elsewhere already."""
    others = [name for name in new if name != whole.home]
    if others:
        return {name: _facts(whole, name, known) for name in others}
    change = _facts(whole, whole.home, known)
    give: dict[str, int] = {}
    for member in known.values():
        missing = member.committed - _having(member, known)
        if member.name != whole.home and missing > 0:
            give[member.name] = change.gave.get(member.name, 0) + missing
    return {whole.home: replace(change, give=give)}


# -- who needs what --------------------------------------------------------------------------------


def _having(member: Member, known: Mapping[str, Member]) -> int:
    """Its share, with what was given to it and not taken yet."""
    if member.share is None:
        return 0
    return member.share.balance + sum(member.takes(other) for other in known.values())


def _moves(whole: Whole, known: Mapping[str, Member]) -> list[tuple[str, str, int]]:
    """Who gives to whom, in totals: from those with the most to spare to those who lack most.

    Nothing moves while every bus has what it wants, or its fair part of what there is, and none is
    nearer to its share than all are to the whole. What one was given it takes before it is given
    more: else the time from when on it may take that would always lie ahead of a slower clock.
    """
    having = {name: _having(member, known) for name, member in known.items()}
    lacks = _lacking(whole, known, having)
    parts = _parts(whole, known, having)
    spare = {
        name: member.share.balance - max(parts[name], member.committed)
        for name, member in known.items()
        if member.share is not None and name not in lacks
    }
    moves: list[tuple[str, str, int]] = []
    for receiver in sorted(lacks, key=lambda name: -lacks[name]):
        for giver in sorted(spare, key=lambda name: -spare[name]):
            part = min(lacks[receiver], spare[giver])
            share = known[giver].share
            if share is None or part <= 0 or known[receiver].takes(known[giver]):
                continue
            moves.append((giver, receiver, share.given.get(receiver, 0) + part))
            lacks[receiver] -= part
            spare[giver] -= part
    return moves


def _wanted(whole: Whole, known: Mapping[str, Member], having: Mapping[str, int]) -> dict[str, int]:
    """What each wants. Its home wants what the whole is to lose, and what those have who leave."""
    wanted = {
        name: m.committed if name in whole.leaving else max(m.wanted, m.committed)
        for name, m in known.items()
    }
    home = known.get(whole.home)
    if home is not None and home.share is not None:
        left = sum(max(0, having[n] - wanted[n]) for n in whole.leaving if n in known)
        wanted[home.name] += max(0, home.share.whole - whole.amount)
        if left:
            wanted[home.name] = max(wanted[home.name], having[home.name]) + left
    return wanted


def _parts(whole: Whole, known: Mapping[str, Member], having: Mapping[str, int]) -> dict[str, int]:
    wanted = _wanted(whole, known, having)
    bounds = {name: (known[name].committed, wanted[name]) for name in known}
    return fair_parts(sum(having.values()), bounds, whole.leaving)


def _lacking(
    whole: Whole, known: Mapping[str, Member], having: Mapping[str, int]
) -> dict[str, int]:
    """What each lacks of its part, where that keeps its tasks waiting, or brings it to a level,
    with its alerts, at which the whole is not."""
    wanted, parts = _wanted(whole, known, having), _parts(whole, known, having)
    total = sum(having.values())
    level = budgets.level(sum(wanted.values()), total)
    lacks: dict[str, int] = {}
    for name in known:
        lack = parts[name] - having[name]
        waits = having[name] < min(wanted[name], parts[name])
        grain = max(1, total * GRAIN_PERCENT // 100)
        if waits or (lack >= grain and budgets.level(wanted[name], having[name]) > level):
            lacks[name] = lack
    return lacks


def fair_parts(
    total: int, bounds: Mapping[str, tuple[int, int]], leaving: Collection[str] = ()
) -> dict[str, int]:
    """``total`` divided: each gets at least the first of its ``bounds``; up to the second as much
    as all others. What is left then goes by what each has got, so that each is as near to its part
    as all are to the whole; who has nothing gets a little, those ``leaving`` get none of it."""

    def parts(level: int) -> dict[str, int]:
        return {name: max(low, min(high, level)) for name, (low, high) in bounds.items()}

    low, high = 0, max((high for _, high in bounds.values()), default=0)
    while low < high:  # the highest level that there is enough for
        level = (low + high + 1) // 2
        low, high = (level, high) if sum(parts(level).values()) <= total else (low, level - 1)
    chosen = parts(low)
    left = total - sum(chosen.values())
    staying = [name for name in chosen if name not in leaving]
    if left <= 0 or any(chosen[name] < bounds[name][1] for name in chosen):
        return chosen
    weights = {name: chosen[name] + total * LITTLE_PERCENT // 100 + 1 for name in staying}
    of_all = sum(weights.values())
    return chosen | {name: chosen[name] + left * weights[name] // of_all for name in staying}
