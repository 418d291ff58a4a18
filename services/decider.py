"""What deciders read and say. PURE.

A decider is a generator ``decide(state, now, inputs)``: it reads the state and yields decisions.
Whoever runs it folds every Event as it is yielded, so it always sees *the state so far*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from events.envelope import Event, Payload
from events.log import WordsRemoved
from events.money import Lookup, no_quotes
from events.policy import PolicyChanged
from projections.state import State


class IntakeEntry(msgspec.Struct, frozen=True, gc=False):
    """One raw entry of an intake stream; ``fields`` alternates names and values."""

    intake: str
    id: str
    fields: list[bytes]


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """An intake entry that cannot be accepted: it goes to the dead letters with this error.

    ``back_to``: its id lies far in the future, so it has to leave the intake, too; the next entry
    there gets at least this id. ``size``: the bytes it had, where less of it is here.
    """

    entry: IntakeEntry
    error: str
    back_to: str = ""
    size: int = 0


class Taken(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key that the following event takes: ``key`` is ``intake|id``. ``place`` is the
    log id of that event, filled in by whoever runs the turn."""

    key: str
    digest: str
    place: str = ""


class Defaults(msgspec.Struct, frozen=True):
    """What a submission gets where it does not say; times in seconds, sizes in bytes."""

    timeout_s: int = 7200
    max_attempts: int = 3
    backoff_s: int = 5
    backoff_max_s: int = 300
    lease_s: int = 60
    text_max_bytes: int = 262_144
    result_max_bytes: int = 65_536
    escalate_to: str = ""  # the model for a last try after a cheaper one failed; "" for none
    refuse_secrets: bool = False  # whether a prompt that holds one is refused


class Asked(msgspec.Struct, frozen=True):
    """What has to be looked up beside the log: idempotency keys (``intake|id``), ids of tasks that
    the state does not remember, and workers whose heartbeat is wanted."""

    ids: Collection[str] = ()
    tasks: Collection[str] = ()
    workers: Collection[str] = ()


class Known(msgspec.Struct, frozen=True):
    """What was looked up beside the log: idempotency keys taken (``intake|id`` -> digest), ids
    of tasks which the state no longer remembers, and whose heartbeat stands under the names that
    are wanted (worker -> session, "" for none)."""

    ids: Mapping[str, str] = {}
    ended_tasks: frozenset[str] = frozenset()
    heartbeats: Mapping[str, str] = {}


class PastLost(msgspec.Struct, frozen=True, gc=False):
    """The log went back: ``was`` is the event folded last, which is not there any more, ``now``
    the last that is, and ``said`` the newest log.went_back that had been folded by then."""

    was: str
    now: str
    said: str = "0-0"


class EvictionLook(msgspec.Struct, frozen=True, gc=False):
    """What the server said of eviction when the log stood at ``place``: its maxmemory-policy, how
    many keys it has dropped since it started, and the run id of that start."""

    place: str
    policy: str
    evicted: int
    run: str


class Inputs(msgspec.Struct):
    """What a turn's deciders read besides the state. Times are µs of server time.

    ``texts`` holds the prompts of tasks without a route. By the host's monotonic clock, in µs:
    ``absent_us`` says for how long the heartbeat of each session was absent at every look, and
    ``found_us`` for how long the server has been looked at without a gap. ``latest`` is the latest
    that the server's clock was seen at, and ``step`` its last step: by how much, and when it was
    noticed, both µs.
    ``price_lookup`` knows prices of models that the book does not name.
    ``log_name`` names a log that begins now; ``foreign`` holds the log ids of entries that asb
    did not write, in order; ``trimmed`` is where the log begins since somebody cut it by hand.
    ``secret`` keys the marks of words; ``overlay`` is what the delegator was taught: the log id of
    that learning and its weights.
    ``eviction`` is the newest look at whether the server drops keys; ``words_removed`` is what this
    host took out of the streams last.
    """

    entries: Iterable[IntakeEntry] = ()
    known: Known = Known()
    texts: dict[str, str] = {}
    absent_us: Mapping[str, int] = {}
    found_us: int = 0
    latest: int = 0
    step: tuple[int, int] = (0, 0)
    defaults: Defaults = Defaults()
    main_intake: str = "asb:intake"
    initial_policy: PolicyChanged | None = None
    price_lookup: Lookup = no_quotes
    log_name: str = ""
    secret: bytes = b""
    overlay: tuple[str, Mapping[str, str]] = ("", {})
    past_lost: PastLost | None = None
    foreign: Sequence[str] = ()
    trimmed: str = ""
    eviction: EvictionLook | None = None
    words_removed: WordsRemoved | None = None


class Unclean(msgspec.Struct, frozen=True, gc=False):
    """An intake entry whose raw words must not stay there: it leaves within the hour."""

    intake: str
    id: str


Decision: TypeAlias = Event | Rejection | Taken | Unclean
Decisions: TypeAlias = Iterator[Decision]
Decide: TypeAlias = Callable[[State, int, Inputs], Decisions]
Asks: TypeAlias = Callable[[State, Iterable[IntakeEntry]], Asked]


class Decider(msgspec.Struct, frozen=True):
    """One decider, as an engine runs it. ``emits``: the types of event it decides; what else it
    yields is a fault. ``asks``: it reads the intake streams, and this says what it has to know of
    entries beside the state; ``reads_prompts``: it needs the prompts of new tasks; ``entire``: what
    it says belongs to the turn, which no bound cuts off between two of its events.
    """

    name: str
    decide: Decide
    emits: frozenset[type[Payload]]
    asks: Asks | None = None
    reads_prompts: bool = False
    entire: bool = False


def decided(payload: Payload, by: str) -> Event:
    """An event that a service decided; its place, time and id are given when it is appended."""
    return Event(payload, source=by)
