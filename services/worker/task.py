"""What a worker's code sees: the task, what it may give back, and what a driver is.

Nothing here talks to Redis; the session (``session.py``) does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from events.commands.workers import HoldingAttempt
from events.figures import TOKENS_MAX, count
from services.worker.continuity import order

log = logging.getLogger("asb.worker")

RESULT_BYTES = 64 * 1024
PROGRESS_BYTES = 64 * 1024
_NAME = re.compile(r"[^\s\x00-\x20\x7f:*?\[\]{}]{1,100}")  # what may be a part of a key


class PermanentError(Exception):
    """Raised by a handler or a driver: this attempt failed, and so would every other."""


class RetryableError(Exception):
    """Raised by a driver: this attempt failed, another may not. ``str()`` is shown as it is."""


class LimitReached(RetryableError):
    """Raised by a driver: its provider refuses this account, until ``until`` (seconds since the
    epoch, 0: not told). ``str()`` is the evidence. It is tried again, and not counted as a try."""

    def __init__(self, evidence: str, until: int = 0) -> None:
        super().__init__(evidence)
        self.until = until


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one attempt, in disjoint parts. ``None`` is unknown, which is not zero.

    ``input_tokens`` are the uncached ones, ``output_tokens`` include reasoning. ``total_tokens``
    is only for agents that do not tell the parts. Whole numbers of any type become integers
    (``1000.0``, a Decimal, one of numpy's). Anything else is no error, for a figure must not cost
    the work: it is reported as a text, the bus flags it, and the usage counts as unknown.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    total_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: object = getattr(self, name)
            if value is not None and not (type(value) is int and 0 <= value <= TOKENS_MAX):
                msgspec.structs.force_setattr(self, name, figure(value))

    def plus(self, other: Usage) -> Usage:
        """The sum; a part stays unknown only where both sides do not know it."""
        return Usage(*(_sum(getattr(self, f), getattr(other, f)) for f in self.__struct_fields__))


def figure(value: Any) -> int | str:
    """``value`` as the integer it is, else as a text that says what stood there."""
    number: object = count(value)
    if number is None and not isinstance(value, bool | str):
        with contextlib.suppress(Exception):  # whatever another library's number does
            number = int(value) if value == int(value) else None
    if type(number) is int and 0 <= number <= TOKENS_MAX:
        return number
    text = str(value)[:40].encode("utf-8", "replace").decode()
    log.warning("usage: %r is no whole number of tokens, so the usage is unknown", text)
    return text


def _sum(mine: Any, other: Any) -> Any:
    if mine is None or other is None:
        return other if mine is None else mine
    unreadable = [value for value in (mine, other) if type(value) is not int]
    return unreadable[0] if unreadable else mine + other


class Result(msgspec.Struct):
    """What a task came to.

    ``text`` loses its beginning where the report would exceed 64 kB; ``left_out`` says how many
    bytes were lost before. ``usage`` and ``cost_usd`` stay ``None`` where they are not known;
    ``usage`` may also be what a vendor's library says, a mapping or an object, as it is.
    ``extra`` fields (at most 16 kB of JSON) stand beside the others in the report.
    """

    text: str = ""
    usage: Usage | Mapping[str, Any] | object | None = None
    model: str = ""
    cost_usd: float | str | None = None
    extra: dict[str, Any] | None = None
    left_out: int = 0


class Task:
    """One attempt at a task, as the engine dispatched it. ``deadline_us`` is server time, 0: none;
    ``timeout_s`` is how long it may take in all, 0: not told. ``traceparent``: the context that
    what it calls can be traced under (W3C; "": none)."""

    __slots__ = (
        "_gate",
        "_heard",
        "_send",
        "_spend",
        "agent",
        "attempt",
        "calls",
        "cancel_reason",
        "cancelled",
        "cost_usd",
        "deadline_us",
        "extra",
        "id",
        "kind",
        "meter",
        "model",
        "model_used",
        "on_pause",
        "other_meters",
        "over_budget",
        "priority",
        "session",
        "spent",
        "text",
        "timeout_s",
        "traceparent",
        "worker",
    )

    def __init__(
        self,
        fields: dict[bytes, bytes],
        *,
        worker: str,
        send: Callable[[Task, Any], Awaitable[None]],
        spend: Callable[[Task, Any, str, str], Awaitable[None]] | None = None,
    ) -> None:
        """From the fields of an inbox entry. Raises ValueError where task or attempt is missing."""
        get = fields.get
        self.id = get(b"task", b"").decode("utf-8", "replace")
        self.attempt = int(get(b"attempt", b""))
        self.session = get(b"session", b"").decode("utf-8", "replace")
        self.text = get(b"text", b"").decode("utf-8", "replace")
        self.kind = get(b"kind", b"").decode("utf-8", "replace")
        self.agent = get(b"agent", b"").decode("utf-8", "replace")
        self.model = get(b"model", b"").decode("utf-8", "replace")
        self.priority = get(b"priority", b"normal").decode("utf-8", "replace")
        self.deadline_us = int(get(b"deadline") or 0)
        self.timeout_s = int(get(b"timeout_s") or 0)
        self.worker = worker
        self.traceparent = ""
        self.cancelled = False  # set before the handler is cancelled, for code that must not be
        self.cancel_reason = ""
        self.spent: Usage | object | None = None  # a driver's may be as its program wrote it
        self.meter = ""  # a driver's: who says so ("": the driver), and what others say
        self.other_meters: dict[str, Any] | None = None
        self.calls: int | None = None  # to models, where a driver knows: 0 releases the hold
        self.model_used = ""  # a driver's: which it really was, and what its program says it cost
        self.cost_usd: float | str | None = None
        self.extra: dict[str, Any] | None = None  # fields for the report, however the task ends
        self.over_budget = ""  # why the budgets allow it no more, while they do not
        self.on_pause: Callable[[bool], None] | None = None  # a driver's: stop, or go on
        self._gate: asyncio.Event | None = None
        self._heard = (0, 0)  # log id of the last word on its hold
        self._send = send
        self._spend = spend
        if not self.id:
            raise ValueError("no task id")

    def usage(self, **tokens: int) -> None:
        """Add to the attempt's usage: it is reported however the attempt ends.

        Names are those of ``Usage``, which says what becomes of a figure that is none.
        """
        more = Usage(**tokens)
        self.spent = self.spent.plus(more) if isinstance(self.spent, Usage) else more

    async def used_so_far(self, usage: Any, model: str, meter: str = "driver") -> None:
        """Report what was used by now, in all: so that a runaway is seen before its end. ``usage``
        is what ``Result.usage`` may be, under the ``model`` that was really used; ``meter`` says
        who knows it."""
        if self._spend is not None:
            await self._spend(self, usage, model, meter)

    @property
    def paused(self) -> bool:
        """Whether it is to take no further step until the budgets allow it more."""
        return self._gate is not None

    async def may_go_on(self) -> None:
        """Wait while the task is paused: it used what was held for it, the budgets allow no more,
        and the policy says ``pause`` (its ``guard``).

        Call it before each step that costs tokens. A handler that does goes beyond its budget by
        the one step that told so and no more; one that never does is not stopped by a pause. The
        wait ends when the hold is extended; a deadline or a cancellation ends it as it ends any
        other ``await``.
        """
        while self._gate is not None:
            await self._gate.wait()

    def hold_changed(self, fields: dict[bytes, bytes]) -> None:
        """The session: an entry of the inbox says that it may use no more, or more again.

        Entries may come late and out of order; the newest place on the log counts. Where the
        action is ``cancel`` a cancellation comes by itself.
        """
        word = order(fields.get(b"log", b""))
        if (0, 0) < word <= self._heard:
            return
        self._heard = word
        if fields.get(b"type") == b"hold.extended":
            log.info("task %s may go on: its hold was extended", self.id)
            self.over_budget = ""
            self._pause(False)
            return
        action = fields.get(b"action", b"").decode("utf-8", "replace")
        reason = fields.get(b"reason", b"").decode("utf-8", "replace")
        log.warning("task %s is over its budget (%s): %s", self.id, action, reason)
        self.over_budget = reason or "it used what was held for it"
        self._pause(action == "pause")

    def _pause(self, paused: bool) -> None:
        gate = self._gate
        if paused == (gate is not None):
            return
        self._gate = asyncio.Event() if paused else None
        if gate is not None:
            gate.set()
        if self.on_pause is not None:
            self.on_pause(paused)

    async def progress(self, document: Any) -> None:
        """Publish ``document`` (JSON, at most 64 kB) as this task's progress.

        Waits while the worker has more reports waiting for Redis than it may keep. Raises
        TypeError for what JSON cannot hold, ValueError for what is too long.
        """
        await self._send(self, document)


class Driver(Protocol):
    """How a task is done: one file per driver.

    ``run`` may be cancelled at any moment, and again every five seconds until it returns. It must
    not return before every process it started is gone, for then the attempt counts as ended.
    """

    async def prepare(self) -> None:
        """Once, before the worker joins. Raises ConfigError when tasks could not run at all."""
        ...

    def run(self, task: Task, /) -> Awaitable[Result | str | None]:
        """Do it. Any exception but PermanentError means that another attempt may succeed."""
        ...

    def renewed(self, until: float, end: float, /) -> None:
        """The lease runs to ``end`` (``time.monotonic`` seconds, the same in every process of this
        machine). At ``until`` processes must begin to end, unasked, so as to be gone by then."""
        ...


class Tell(Protocol):
    """Reports for a driver."""

    def __call__(self, kind: str, fields: dict[str, Any], name: str = "", /) -> None:
        """A report of this type with these fields; with a ``name`` it counts once, whoever tells it
        again."""


@runtime_checkable
class AgentKeeper(Protocol):
    """A driver whose agent lives on when its worker ends, and says things between tasks."""

    def holds(self) -> tuple[HoldingAttempt, ...]:
        """What the agent is at from before, with evidence: these attempts go on, if the engine has
        not given them out again. ``run`` is called for each as for a new one."""
        ...

    def joined(self) -> None:
        """The worker asked for a session: from here on what its agent does is said, anew."""
        ...

    def keep(self, tell: Tell, /) -> Awaitable[None]:
        """Look after the agent for as long as the worker lives; ``tell`` the bus what it does.
        Raises AsbError where it cannot go on."""
        ...


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: its name, what it serves, and how it is to behave. Times are in seconds."""

    name: str
    driver: Driver
    agent: str | None = None  # none: it serves all
    models: tuple[str, ...] = ()  # with * for anything; none: all
    cheap: str = ""  # its models for the two tiers of the routes: see ``events.worker``
    capable: str = ""
    capacity: int = 1
    account: str | None = None
    intake: str | None = None  # the name of its own intake stream, else the shared one
    lease_s: int = 60
    heartbeat_s: float = 15.0
    grace_s: float = 10.0  # what running tasks get when the worker is asked to stop
    take_over: bool = False  # take the name from a living holder
    keeper: str = ""  # the `asb up` that keeps it: see ``events.worker.WorkerHeartbeat``

    def check(self) -> None:
        """Raises ValueError, naming the field, for what cannot work."""
        for field, name in (("name", self.name), ("agent", self.agent)):
            if name is not None and not _NAME.fullmatch(name):
                raise ValueError(
                    f"{field} {name[:60]!r}: 1 to 100 characters, no blanks, colons, brackets or "
                    "wildcards"
                )
        if self.capacity < 1:
            raise ValueError(f"capacity {self.capacity}: at least 1")
        if self.lease_s < 1:
            raise ValueError(f"lease_s {self.lease_s}: at least 1")
        if not 0 < self.heartbeat_s <= self.lease_s / 2:
            raise ValueError(f"heartbeat_s {self.heartbeat_s}: more than 0, at most half the lease")
        if self.grace_s < 0:
            raise ValueError(f"grace_s {self.grace_s}: not negative")
