"""When a server that drops keys is told of: once, until mended, and never from an old look."""

from __future__ import annotations

from events.envelope import Event
from events.server import RedisEvicts, RedisKeeps
from projections import fold
from projections.state import State
from services.decider import EvictionLook, Inputs
from services.engine.eviction import decide
from tests.examples import policy
from tests.given import wire


class Log:
    """A log whose only decider is this one."""

    def __init__(self) -> None:
        self.state = State()
        self.said: list[RedisEvicts | RedisKeeps] = []
        self._append(Event(policy()))

    def _append(self, event: Event) -> None:
        event.log_id = f"{self.state.meta.events + 1}-0"
        event.raw = wire(event.data)
        fold.apply(self.state, event)

    @property
    def place(self) -> str:
        return self.state.meta.log_id

    def look(self, policy: str, evicted: int = 0, run: str = "r1", place: str = "") -> list[object]:
        inputs = Inputs(eviction=EvictionLook(place or self.place, policy, evicted, run))
        events = list(decide(self.state, 0, inputs))
        for event in events:
            assert isinstance(event, Event)
            self._append(event)
        return [type(event.data) for event in events if isinstance(event, Event)]


def test_a_policy_that_evicts_is_said_once_however_many_keys_go() -> None:
    log = Log()
    assert log.look("noeviction") == []
    assert log.look("allkeys-lru") == [RedisEvicts]
    assert log.look("allkeys-lru", evicted=5) == []
    assert log.look("volatile-ttl", evicted=9) == []


def test_mended_it_is_over_and_said_again_the_next_time() -> None:
    log = Log()
    log.look("allkeys-lru", evicted=5)
    assert log.look("noeviction", evicted=7) == [RedisKeeps]
    assert log.look("noeviction", evicted=7) == []
    assert log.look("volatile-lru", evicted=7) == [RedisEvicts]


def test_keys_that_went_while_nobody_looked_are_said() -> None:
    log = Log()
    assert log.look("noeviction", evicted=5) == [RedisEvicts]
    assert log.look("noeviction", evicted=5) == [RedisKeeps]
    assert log.look("noeviction", evicted=5) == []
    assert log.look("noeviction", evicted=0, run="r2") == []  # the server counts anew
    assert log.look("noeviction", evicted=1, run="r2") == [RedisEvicts]


def test_a_look_from_before_the_last_word_says_nothing() -> None:
    log = Log()
    before = log.place
    assert log.look("allkeys-lru") == [RedisEvicts]
    assert log.look("noeviction", place=before) == []


def test_a_server_that_does_not_tell_its_policy_is_not_accused() -> None:
    assert Log().look("unknown") == []


def test_an_empty_log_is_seeded_first() -> None:
    assert (
        list(decide(State(), 0, Inputs(eviction=EvictionLook("0-0", "allkeys-lru", 0, "")))) == []
    )
