"""What a worker writes to its intake stream, as JSON.

The names of the fields are a contract with the engine; see ``DESIGN.md``, section 2.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import msgspec

from events.commands.workers import HoldingAttempt
from events.money import nanos_of
from events.secrets import masked, masked_json
from events.tokens import read
from services.worker.task import (
    RESULT_BYTES,
    LimitReached,
    Result,
    Task,
    Usage,
    WorkerOptions,
    figure,
)

# Type and data; and by which id it is known, where somebody may tell the same again.
Report = tuple[str, bytes] | tuple[str, bytes, str]

_encode = msgspec.json.Encoder().encode
log = logging.getLogger("asb.worker")

REPORT_BYTES = 64 * 1024
EXTRA_BYTES = 16 * 1024
USAGE_BYTES = 8 * 1024
_ERROR_BYTES = 4 * 1024


class _Joined(msgspec.Struct, omit_defaults=True):
    v: int
    worker: str
    capacity: int
    lease_s: int
    holds: tuple[HoldingAttempt, ...]
    agent: str | None = None
    models: tuple[str, ...] = ()
    account: str | None = None
    instance: str = ""
    evidence: str = ""
    take_over: bool = False
    cheap: str = ""
    capable: str = ""


class ProviderLimit(msgspec.Struct, omit_defaults=True):
    """A provider refuses the worker's account: until when (µs, 0: not told), in whose words."""

    until: int
    evidence: str
    account: str = ""


class _Attempt(msgspec.Struct, omit_defaults=True):
    """What ``task.*`` reports share. ``started`` is written only when it is false: an end says
    by itself that there was a beginning."""

    v: int
    task: str
    attempt: int
    session: str
    worker: str
    started: bool = True
    result: str | None = None
    error: str | None = None
    retryable: bool | None = None
    reason: str = ""
    usage: Any = None
    meter: str = ""
    meters: dict[str, Any] | None = None
    model: str = ""
    cost_usd: float | str | None = None
    duration_ms: int | None = None
    calls: int | None = None
    limit: ProviderLimit | None = None


def joined(
    options: WorkerOptions,
    instance: str,
    evidence: str,
    take_over: bool,
    holds: tuple[HoldingAttempt, ...] = (),
) -> Report:
    """``evidence`` that the holder of the name is dead begins with the holder's session;
    ``holds``: what an agent still runs that the holder was given."""
    body = _Joined(
        1,
        options.name,
        options.capacity,
        options.lease_s,
        holds,
        options.agent,
        options.models,
        options.account,
        instance,
        evidence,
        take_over,
        options.cheap,
        options.capable,
    )
    return "worker.joined", _encode(body)


def left(worker: str, session: str) -> Report:
    return "worker.left", _encode({"v": 1, "worker": worker, "session": session})


def of_agent(worker: str, kind: str, fields: dict[str, Any], name: str = "") -> Report:
    """What a driver says of its agent, between tasks or beside them; ``name`` is its id."""
    data = masked_json(_encode({"v": 1, "worker": worker, **fields}))
    return (kind, data, name) if name else (kind, data)


def started(task: Task) -> Report:
    return "task.started", _with(_body(task), task.extra)


def progress(task: Task, document: Any) -> Report:
    agent = task.agent or task.worker
    body = {"v": 1, "agent": agent, "task": task.id, "document": document}
    return "progress.updated", masked_json(_encode(body))


def spent(task: Task, usage: Any, model: str, meter: str) -> Report:
    """What a running attempt has used by now, in all, by the word of ``meter``."""
    body = {
        "v": 1,
        "agent": task.agent or task.worker,
        "worker": task.worker,
        "task": task.id,
        "attempt": task.attempt,
        "meter": meter,
        "model": model,
        "usage": usage_of(usage),
    }
    return "usage.recorded", _encode(body)


def completed(task: Task, outcome: Result | str | None, duration_ms: int) -> Report:
    """A handler's own figures win over what it counted with ``task.usage`` on the way; one that
    returns nothing has no result.

    The whole report has at most 64 kB: from a longer one the engine would take the end away.
    Raises TypeError, ValueError or AttributeError for what is no result.
    """
    result = outcome if isinstance(outcome, Result) else Result(outcome or "")
    body = _body(task)
    body.duration_ms = duration_ms
    body.usage = usage_of(task.spent if result.usage is None else result.usage)
    _compared(body, task)
    body.model = str(result.model or task.model_used or task.model)
    body.cost_usd = _possible(result.cost_usd)
    extra = {**(task.extra or {}), **(result.extra or {})}
    text = masked(result.text)
    body.result = None if outcome is None else clipped(text, RESULT_BYTES, result.left_out)
    data = _with(body, extra)
    limit = RESULT_BYTES
    while len(data) > REPORT_BYTES:  # JSON writes some characters as six
        spare = max(512, (len(data) - REPORT_BYTES) * limit // len(data))
        limit = max(128, limit - spare)
        body.result = clipped(text, limit, result.left_out)
        data = _with(body, extra)
    return "task.completed", data


def usage_of(usage: object) -> Any:
    """Usage as it can be written: what it is and means is for its one reader, at the bus, to say.

    Objects of other libraries are taken by their fields; of a long one only the verdict is told.
    Never raises: a figure must not cost the work.
    """
    if usage is None or isinstance(usage, Usage):
        return usage
    plain: Any = usage
    with contextlib.suppress(Exception):  # whatever another library's object does
        dump = getattr(usage, "model_dump", None)
        plain = dump() if callable(dump) else msgspec.to_builtins(usage, enc_hook=_fields)
        if len(_encode(plain)) <= USAGE_BYTES:
            return plain
        parts = read(plain).usage
        if parts is not None:
            return msgspec.to_builtins(parts)
    return figure(usage)


def _fields(part: Any) -> Any:
    fields: Any = getattr(part, "__dict__", None)
    return figure(part) if fields is None else fields


def _possible(cost: float | str | None) -> float | str | None:
    """``cost`` unless the engine would refuse the whole report for it."""
    if cost is None:
        return None
    try:
        nanos = nanos_of(cost)
    except ValueError:
        nanos = -1
    if 0 <= nanos <= 10**15:
        return cost
    log.warning("a cost of %r dollars is not possible and is not reported", cost)
    return None


def failed(
    task: Task,
    error: str,
    *,
    retryable: bool,
    begun: bool,
    duration_ms: int,
    limit: LimitReached | None = None,
) -> Report:
    body = _body(task)
    body.error = clipped(masked(error), _ERROR_BYTES) or "failed without a word"
    body.retryable = retryable
    if limit is not None:
        body.limit = ProviderLimit(limit.until * 1_000_000, clipped(masked(error), 500))
    return "task.failed", _with(_ended(body, task, begun, duration_ms), task.extra)


def cancelled(task: Task, reason: str, *, begun: bool, duration_ms: int) -> Report:
    body = _body(task)
    body.reason = clipped(masked(reason), _ERROR_BYTES)
    return "task.cancelled", _with(_ended(body, task, begun, duration_ms), task.extra)


def _ended(body: _Attempt, task: Task, begun: bool, duration_ms: int) -> _Attempt:
    """With what the attempt used, however it went wrong."""
    body.started = begun
    body.usage = usage_of(task.spent)
    _compared(body, task)
    body.calls = task.calls
    body.model = task.model_used
    body.cost_usd = _possible(task.cost_usd)
    body.duration_ms = duration_ms
    return body


def _compared(body: _Attempt, task: Task) -> None:
    """Who says what was used, and what the others say."""
    body.meter = task.meter
    if task.other_meters:
        body.meters = {name: usage_of(usage) for name, usage in task.other_meters.items()}


def _body(task: Task) -> _Attempt:
    return _Attempt(1, task.id, task.attempt, task.session, task.worker)


def _with(body: _Attempt, extra: dict[str, Any] | None) -> bytes:
    data = _encode(body)
    if not extra:
        return data
    known = _Attempt.__struct_fields__  # nobody's extra field may replace one of the protocol
    beside = {name: value for name, value in extra.items() if name not in known}
    try:
        more = masked_json(_encode(beside))
    except (TypeError, ValueError) as error:
        log.warning("extra fields of task %s cannot be written: %s", body.task, error)
        return data
    if len(more) > EXTRA_BYTES:
        log.warning("extra fields of task %s have %d bytes: left out", body.task, len(more))
        return data
    return data[:-1] + b"," + more[1:] if beside else data


def clipped(text: str, limit: int = RESULT_BYTES, left_out: int = 0) -> str:
    """The end of ``text`` in at most ``limit`` bytes: the end of an answer matters most.

    What JSON cannot hold (lone surrogates) is replaced. A shortened text begins with a mark that
    says how much is missing, ``left_out`` bytes of an earlier cut included.
    """
    if not left_out and len(text) <= limit and text.isascii():
        return text
    data = text.encode("utf-8", "replace")
    if not left_out and len(data) <= limit:
        return data.decode("utf-8")
    kept = limit - 64  # the mark is shorter than that
    rest = data[-kept:].decode("utf-8", "ignore")
    missing = left_out + len(data) - len(rest.encode())
    return f"[… the first {missing} bytes are left out …]\n{rest}"
