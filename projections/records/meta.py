"""Counters and marks of a whole state."""

from __future__ import annotations

import msgspec

from events.policy import PolicyChanged
from projections.records.routing import Overlay


class Meta(msgspec.Struct, gc=False):
    """Counters and marks. ``log_id``: the last event folded, ``at`` its time; ``clock``: the
    largest ``at`` seen, ``latest``: the same since an operator last confirmed the clock. Times are
    µs. Foreign entries count once an event told of them."""

    log_id: str = "0-0"
    at: int = 0
    clock: int = 0
    latest: int = 0
    passed: int = 0  # time that has passed on this log without a jump: see projections/clock
    repeated: int = 0  # how much of the time to come has been seen before
    step_by: int = 0  # the last step of the clock, and when
    step_at: int = 0
    large_step: int = 0  # the last of more than an hour that nobody has confirmed
    large_step_at: int = 0
    large_step_id: str = ""
    large_step_passed: int = 0  # ``passed`` by then
    events: int = 0
    submitted: int = 0
    ended: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    unknown: int = 0  # events of types this version may skip
    reported: str = ""  # every day up to this date had its report
    went_back: str = ""  # log id of the newest log.went_back
    trimmed: str = ""  # where the log began after the newest log.trimmed, and its log id
    trimmed_said: str = ""
    foreign: int = 0  # foreign entries told of so far, the last of them, and when that was
    foreign_id: str = ""
    foreign_at: int = 0
    foreign_said: str = ""  # log id of the newest log.foreign_entries
    evicts: bool = False  # whether the server was last said to drop keys; see projections/eviction
    evicted: int = 0
    evicted_run: str = ""
    eviction_said: str = ""  # log id of the newest redis.evicts or redis.keeps
    compared_said: str = ""  # log id of the newest usage.compared that is an alert
    agent_said: str = ""  # of the newest alert about what an agent does
    policy: PolicyChanged = msgspec.field(default_factory=PolicyChanged)
    overlay: Overlay = Overlay()  # what the delegator was taught
    policy_after: int = 0  # how many tasks had been submitted when the policy last changed
    forgotten_id: str = ""  # log id of the newest task.forgotten
    words_removed: str = ""  # up to which task.forgotten words were taken out of the streams
    words_before: int = 0  # words of tasks that had ended by then are gone, µs
