"""The view of windows at ``asb:throttle``; alerts on their channel, to commands and webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import anyio
import msgspec

from events.clock import ClockStepped
from events.envelope import Event
from events.keys import Keys
from events.log import LogForeignEntries, LogTrimmed, LogWentBack
from events.money import NANOS_PER_DOLLAR
from events.policy import AlertRaised
from events.server import RedisEvicts
from events.usage import UsageCompared
from events.worker import WorkerState, WorkerTwin
from projections import views
from projections.budgets import LEVELS
from projections.state import State
from services.projector import Projector, Setup, Views
from services.runtime import hooks
from services.runtime.failpoints import point
from services.runtime.settings_types import HookSetting
from services.store.client import Client
from services.store.log import START, Log, after, parse_id
from services.store.scripts import Argument, script

BUSY_S = 0.5  # how often a host looks whether another has run a hook
CLAIM_MARGIN_S = 5


# What is published as an alert.
ALERTS = (
    *(AlertRaised, LogWentBack, LogTrimmed, LogForeignEntries, RedisEvicts, ClockStepped),
    *(UsageCompared, WorkerState, WorkerTwin),
)


def is_alert(event: Event) -> bool:
    """Whether subscribers are told of it: of a step of the clock only where it is a large one, of
    meters that were compared only where they are far apart."""
    data = event.data
    if type(data) is ClockStepped:
        return data.is_large
    if type(data) is UsageCompared:
        return data.alert
    if type(data) is WorkerState:
        return data.asks
    return type(data) in ALERTS


def level_of(event: Event) -> str:
    """How grave an alert is: what is about the log or its server is of the highest level, meters
    that differ are a warning."""
    data = event.data
    if type(data) is AlertRaised:
        return data.level
    return LEVELS[1] if type(data) in (UsageCompared, WorkerState) else LEVELS[-1]


class _Outgoing(Projector):
    """Hands alerts on in the order of the log. What a host missed (it died, or it did not see what
    became of a turn) is read from the log again, from the mark of what was handed on last."""

    def __init__(self, client: Client, keys: Keys) -> None:
        super().__init__()
        self._client, self._keys = client, keys
        self._log = Log(client, keys)
        self._pending: list[Event] = []
        self._lived = False  # whether a mark was found before
        self._newest = ""  # the newest alert on the log, when it was last folded from there

    def feed(self, events: Sequence[Event], state: State) -> None:
        for event in events:
            if type(event.data) in ALERTS and is_alert(event):
                self._pending.append(event)
                self.wake()

    def restored(self, state: State) -> None:
        """Look at the log again: what was pending may not stand there any more."""
        places = [known.log_id for known in state.raised.values()]
        meta = state.meta
        places += [meta.went_back, meta.trimmed_said, meta.foreign_said, meta.eviction_said]
        places += [meta.large_step_id, meta.compared_said, meta.agent_said]
        places = [place for place in places if place]
        self._newest = max(places, key=parse_id, default=START)
        self._pending = []
        self.wake()

    async def flush(self, woken: bool) -> None:
        """Hand on what is pending."""
        if self._newest:
            await self._find_missed()
        while self._pending:
            event = self._pending[0]
            await self._hand_on(event)
            # Meanwhile the list may have been made anew.
            self._pending = [e for e in self._pending if e is not event]

    async def _find_missed(self) -> None:
        newest, mark = self._newest, await self._mark()
        if mark is None:
            # What was before nobody asked for. A mark that went away while we live went with its
            # log: of the log there is now, nothing was told yet.
            mark = START if self._lived else newest
            await self._begin(mark)
        self._lived = True
        if after(newest, mark):
            missed: list[Event] = []
            async for events in self._log.read(mark, newest):
                missed += [event for event in events if is_alert(event)]
            known = {event.log_id for event in missed}
            self._pending = missed + [e for e in self._pending if e.log_id not in known]
        self._newest = ""

    async def _mark(self) -> str | None:
        """Log id of the last alert handed on, None where none ever was."""
        raise NotImplementedError

    async def _begin(self, newest: str) -> None:
        """Set the first mark, unless another host has."""
        raise NotImplementedError

    async def _hand_on(self, event: Event) -> None:
        raise NotImplementedError


class Alerts(_Outgoing):
    """Publishes ``alert.raised`` on ``asb:alerts`` in the seed's shape, each once: publishing and
    marking are one script. It is not kept for absent subscribers; the event is."""

    async def _mark(self) -> str | None:
        reply = await self._client.call("GET", self._keys.alert_mark)
        return reply.decode() if reply else None

    async def _begin(self, newest: str) -> None:
        await self._client.call("SET", self._keys.alert_mark, newest, "NX")

    async def _hand_on(self, event: Event) -> None:
        body = msgspec.json.encode(message(event))
        point("alert.before")
        args: list[Argument] = [event.log_id, self._keys.alerts_channel, body]
        await script("alert")(self._client, [self._keys.alert_mark], args)
        point("alert.after")


class Hook(_Outgoing):
    """Runs one command or webhook on every alert of its level. One host at a time claims an alert;
    who dies at it leaves the claim to run out, and the alert is run again: at least once."""

    def __init__(self, client: Client, keys: Keys, setting: HookSetting) -> None:
        super().__init__(client, keys)
        self._setting = setting
        reported = "\x1f".join((*setting.command, setting.url)).encode()
        self._key = keys.hook(blake2b(reported, digest_size=8).hexdigest())

    async def _mark(self) -> str | None:
        reply = await self._client.call("HGET", self._key, "mark")
        return reply.decode() if reply else None

    async def _begin(self, newest: str) -> None:
        await self._client.call("HSETNX", self._key, "mark", newest)

    async def _hand_on(self, event: Event) -> None:
        lowest = LEVELS.index(self._setting.level)
        level = level_of(event)
        if LEVELS.index(level) < lowest:
            return
        tries = 1 if self._setting.command else hooks.TRIES
        claim_us = tries * (self._setting.timeout_s + CLAIM_MARGIN_S) * 1_000_000
        args: list[Argument] = [event.log_id, claim_us]
        claim = b""
        while claim in (b"", b"busy"):
            if claim:
                await anyio.sleep(BUSY_S)
            claim = await script("hook")(self._client, [self._key], args)
        if claim == b"yours":
            point("hook.before")
            await self._run(msgspec.json.encode(message(event)))
            point("hook.after")
            await self._client.call("HSET", self._key, "mark", event.log_id)

    async def _run(self, body: bytes) -> None:
        hook = self._setting
        if hook.command:
            await hooks.run_command(list(hook.command), body, hook.timeout_s)
        else:
            await hooks.post(hook.url, body, hook.timeout_s)


_UNIT_WORDS = {"money": "COST", "tokens": "TOKEN", "tasks": "TASK"}


def message(event: Event) -> dict[str, Any]:
    """An alert as subscribers see it. Budgets: the seed's four fields, then more."""
    payload = event.data
    if type(payload) is LogWentBack:
        return {"type": "LOG_WENT_BACK", "was": payload.was, "now": payload.now, **_place(event)}
    if type(payload) is LogTrimmed:
        return {"type": "LOG_TRIMMED", "first": payload.first, **_place(event)}
    if type(payload) is LogForeignEntries:
        fields = {"count": payload.count, "first": payload.first, "last": payload.last}
        return {"type": "FOREIGN_ENTRIES", **fields, **_place(event)}
    if type(payload) is RedisEvicts:
        return {
            "type": "REDIS_EVICTS",
            "policy": payload.policy,
            "evicted": payload.evicted,
            **_place(event),
        }
    if type(payload) is ClockStepped:
        return {"type": "CLOCK_STEPPED", "by_us": payload.by, **_place(event)}
    if type(payload) is UsageCompared:
        return {"type": "USAGE_DIFFERS", **_compared(payload), **_place(event)}
    if type(payload) is WorkerState:
        fields = {"worker": payload.worker, "about": payload.about, "since_us": payload.since}
        return {"type": "PERMISSION_WAIT", **fields, **_place(event)}
    if type(payload) is WorkerTwin:
        fields = {"worker": payload.worker, "task": payload.task, "attempt": payload.attempt}
        return {"type": "WORK_DONE_TWICE", **fields, **_place(event)}
    money = payload.unit == "money"
    scale = NANOS_PER_DOLLAR if money else 1
    return {
        "type": f"{_UNIT_WORDS[payload.unit]}_BUDGET_WARNING"
        if payload.kind == "budget"
        else "THROTTLE_LEVEL",
        "usage": payload.usage / scale if money else payload.usage,
        "budget": payload.budget / scale if money else payload.budget,
        "percentage": round(payload.usage * 100 / payload.budget, 2) if payload.budget else 100,
        "level": payload.level,
        "scope": payload.scope,
        "unit": payload.unit,
        "window": payload.window,
        "usage_exact": payload.usage,
        "budget_exact": payload.budget,
        **_place(event),
    }


def _compared(payload: UsageCompared) -> dict[str, Any]:
    return {
        "task": payload.task,
        "attempt": payload.attempt,
        payload.meter: payload.tokens,
        payload.against: payload.other_tokens,
        "difference": payload.difference,
    }


def _place(event: Event) -> dict[str, str]:
    return {"event": event.id, "log_id": event.log_id}


def projectors(setup: Setup) -> list[Projector]:
    """What the throttle service projects."""
    client, keys = setup.client, setup.keys
    windows = Views(client, {keys.throttle: lambda s: views.throttle_view(s, s.meta.at)})
    hooks_set = [Hook(client, keys, hook) for hook in setup.settings.alerts.hooks]
    return [windows, Alerts(client, keys), *hooks_set]
