"""What a worker writes to its front door, as JSON.

The names of the fields are a contract with the desk; see ``DESIGN.md``, section 2.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.worker.task import RESULT_BYTES, Result, Task, Usage, WorkerOptions

Report = tuple[str, bytes]  # type and data

_encode = msgspec.json.Encoder().encode
_ERROR_BYTES = 4 * 1024


class _Joined(msgspec.Struct, omit_defaults=True):
    v: int
    worker: str
    capacity: int
    lease_s: int
    holds: tuple[str, ...]
    agent: str | None = None
    models: tuple[str, ...] = ()
    account: str | None = None


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
    usage: Usage | None = None
    model: str = ""
    cost_usd: float | str | None = None
    duration_ms: int | None = None


def joined(options: WorkerOptions) -> Report:
    body = _Joined(
        1,
        options.name,
        options.capacity,
        options.lease_s,
        (),
        options.agent,
        options.models,
        options.account,
    )
    return "worker.joined", _encode(body)


def left(worker: str, session: str) -> Report:
    return "worker.left", _encode({"v": 1, "worker": worker, "session": session})


def started(task: Task) -> Report:
    return "task.started", _with(_body(task), task.extra)


def progress(task: Task, document: Any) -> Report:
    agent = task.agent or task.worker
    body = {"v": 1, "agent": agent, "task": task.id, "document": document}
    return "progress.updated", _encode(body)


def completed(task: Task, outcome: Result | str | None, duration_ms: int) -> Report:
    """A handler's own figures win over what it counted with ``task.usage`` on the way."""
    body = _body(task)
    body.duration_ms = duration_ms
    body.usage = task.spent
    body.model = task.model
    extra = task.extra
    if isinstance(outcome, Result):
        body.usage = outcome.usage or task.spent
        body.model = outcome.model or task.model
        body.cost_usd = outcome.cost_usd
        extra = {**(extra or {}), **(outcome.extra or {})}
        body.result = clipped(outcome.text)
    else:
        body.result = clipped(outcome) if outcome else ""
    return "task.completed", _with(body, extra)


def failed(task: Task, error: str, *, retryable: bool, begun: bool, duration_ms: int) -> Report:
    body = _body(task)
    body.started = begun
    body.error = clipped(error, _ERROR_BYTES) or "failed without a word"
    body.retryable = retryable
    body.usage = task.spent
    body.duration_ms = duration_ms
    return "task.failed", _with(body, task.extra)


def cancelled(task: Task, reason: str, *, begun: bool, duration_ms: int) -> Report:
    body = _body(task)
    body.started = begun
    body.reason = clipped(reason, _ERROR_BYTES)
    body.usage = task.spent
    body.duration_ms = duration_ms
    return "task.cancelled", _with(body, task.extra)


def _body(task: Task) -> _Attempt:
    return _Attempt(1, task.id, task.attempt, task.session, task.worker)


def _with(body: _Attempt, extra: dict[str, Any] | None) -> bytes:
    data = _encode(body)
    if not extra:
        return data
    known = _Attempt.__struct_fields__  # nobody's extra field may replace one of the protocol
    beside = {name: value for name, value in extra.items() if name not in known}
    return data[:-1] + b"," + _encode(beside)[1:] if beside else data


def clipped(text: str, limit: int = RESULT_BYTES) -> str:
    """The last ``limit`` bytes of ``text``: the end of an answer matters most.

    What JSON cannot hold (lone surrogates) is replaced. A shortened text begins with a mark that
    says how much is missing; mark and rest together stay within ``limit`` bytes.
    """
    if len(text) <= limit and text.isascii():
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return clipped_bytes(data[-limit:], len(data), limit)


def clipped_bytes(tail: bytes, total: int, limit: int = RESULT_BYTES) -> str:
    """As ``clipped``, for the ``tail`` of an output of ``total`` bytes; binary is replaced."""
    text = tail.decode("utf-8", "replace")
    if total <= limit and len(text) * 3 <= limit:
        return text
    data = text.encode("utf-8")  # a replacement is longer than the byte it stands for
    if total <= limit and len(data) <= limit:
        return text
    kept = limit - 64  # the mark's length has an upper bound
    rest = data[-kept:].decode("utf-8", "ignore")
    return f"[… the first {max(total - kept, 1)} bytes are left out …]\n{rest}"
