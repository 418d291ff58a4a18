"""What is known of a fleet at one moment, as types: `asb top` and the page show them. PURE.

Money is in nano-dollars, times in µs of the server's clock; lengths of time as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from services.queries.urgency import WorkerRow


class Counts(msgspec.Struct, frozen=True):
    waiting: int
    running: int
    submitted: int
    completed: int
    failed: int
    cancelled: int


class Today(msgspec.Struct, frozen=True):
    """What the report day has used so far."""

    date: str
    tokens: int
    cost_nanos: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int


class WindowRow(msgspec.Struct, frozen=True):
    """One limit. ``full_at``: when it is full at the present rate, 0 where it never is. ``whole``:
    what several buses divide where the limit is this one's share of that, else 0."""

    scope: str
    unit: str
    window: str
    used: int
    held: int
    limit: int
    level: str
    percentage: str
    resets_at: int  # 0 for a rolling window: it never resets as a whole
    full_at: int
    whole: int = 0


class Burn(msgspec.Struct, frozen=True):
    """What is used in an hour at the present rate, the last minutes of it, and what ends first."""

    tokens: int
    cost_nanos: int
    minutes: int
    spark_tokens: list[int]
    spark_nanos: list[int]
    ends_at: int  # when the first overall limit is full before it resets; 0: none is
    ends_what: str


class TaskRow(msgspec.Struct, frozen=True):
    """An open task. ``why`` it waits, ``evidence`` and age of its last sign where it runs."""

    task: str
    title: str
    status: str
    priority: str
    kind: str
    agent: str
    model: str
    worker: str
    attempt: int
    max_attempts: int
    age: int
    why: str
    estimate_tokens: int
    tokens: int
    cost_nanos: int
    evidence: str
    sign_age: int


class Queue(msgspec.Struct, frozen=True):
    """What waits: by priority and by state, the one that waits longest, and the first of all."""

    by_priority: dict[str, int]
    by_status: dict[str, int]
    oldest_task: str
    oldest_wait: int
    oldest_why: str
    rows: list[TaskRow]


class Need(msgspec.Struct, frozen=True):
    """Something that waits for a person: what it is about, and the command that answers it."""

    kind: str
    text: str
    command: str
    task: str = ""
    worker: str = ""


class Series(msgspec.Struct, frozen=True):
    """What one agent used, by hour; aligned with ``Plot.hours``."""

    agent: str
    tokens: list[int]
    cost_nanos: list[int]


class Plot(msgspec.Struct, frozen=True):
    """The last hours, each by its beginning."""

    hours: list[int]
    agents: list[Series]


class Overview(msgspec.Struct, frozen=True):
    """Everything on one screen. ``as_of``: the log id it stands for, and ``events`` up to it."""

    as_of: str
    events: int
    at: str
    now: int
    event_at: int
    live: bool
    level: str
    level_reason: str
    tasks: Counts
    tokens: int
    cost_nanos: int
    cost: str
    disputed_tokens: int
    today: Today
    burn: Burn
    windows: list[WindowRow]
    windows_left_out: int
    queue: Queue
    needs: list[Need]
    workers: list[WorkerRow]
    running: list[TaskRow]
    plot: Plot
    notices: list[str]


class Surroundings(msgspec.Struct, frozen=True):
    """What only other processes and keys know, of a live bus: services that nobody runs, dead
    letters, and what the last failures of waiting tasks said, by log id."""

    missing: Collection[str] = ()
    dead_letters: int = 0
    no_engine: str = ""
    errors: Mapping[str, str] = {}
