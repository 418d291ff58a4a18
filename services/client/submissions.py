"""What may be submitted, checked with intake's own rules before it is sent; and the sending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from events.commands.tasks import SubmitTask
from events.keys import Keys
from projections.format import count
from projections.state import State
from services.client.bus import Bus
from services.decider import Defaults, IntakeEntry, Known
from services.intake import schema, submissions
from services.intake.case import Case
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.store.replies import Command

MAIN_INTAKE = Keys().main_intake
NO_SECRET = b""  # what is made here is thrown away


_encode = msgspec.json.Encoder().encode


_submission = msgspec.json.Decoder(SubmitTask)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


# As the command line calls them; on a JSON line both names are understood.
SHORT_NAMES = {"timeout": "timeout_s", "estimate": "estimate_tokens"}


class Submission(msgspec.Struct, gc=False):
    """One task, checked. ``id``: its idempotency key; ``task``: its id where that is known."""

    data: bytes
    id: str = ""
    task: str = ""


class BadLine(msgspec.Struct, frozen=True):
    """One that was not accepted. ``where`` names it: ``line 3`` or ``task 2``."""

    where: str
    error: str


class Checker:
    """Makes submissions out of texts and JSON objects; ``common`` fills what they leave out."""

    def __init__(self, common: dict[str, Any], defaults: Defaults, id_prefix: str = "") -> None:
        self._common, self._defaults, self._prefix = common, defaults, id_prefix
        self._state, self._known = State(), Known()
        self._ids: set[str] = set()

    def texts(self, texts: list[str]) -> Iterator[Submission | BadLine]:
        """Tasks given as arguments."""
        for number, text in enumerate(texts, 1):
            given_id = self._prefix if len(texts) == 1 else self._numbered(number)
            yield self._checked(f"task {number}", {"text": text}, given_id)

    def lines(self, lines: Iterable[bytes]) -> Iterator[Submission | BadLine]:
        """One task a line: a JSON object where it starts with ``{``, else its text. Empty lines
        are left out."""
        for number, line in enumerate(lines, 1):
            bare = line.strip()
            if bare:
                yield self._line(number, bare)

    def item(self, where: str, fields: dict[str, Any], given_id: str) -> Submission | BadLine:
        """One task of another system; ``where`` names it in an error."""
        return self._checked(where, dict(fields), given_id)

    def _line(self, number: int, line: bytes) -> Submission | BadLine:
        where = f"line {number}"
        try:
            fields = _decode(line) if line.startswith(b"{") else {"text": line.decode()}
        except (msgspec.MsgspecError, RecursionError) as error:
            return BadLine(where, f"not valid JSON: {error}")
        except UnicodeDecodeError as error:
            return BadLine(where, f"not UTF-8: {error}")
        return self._checked(where, fields, self._numbered(number))

    def _numbered(self, number: int) -> str:
        return f"{self._prefix}-{number}" if self._prefix else ""

    def _checked(self, where: str, fields: dict[str, Any], given_id: str) -> Submission | BadLine:
        own_id: Any = fields.pop("id", None) or given_id
        for short, name in SHORT_NAMES.items():
            if short in fields:
                fields[name] = fields.pop(short)
        fields = {**self._common, **fields}
        try:
            if own_id:
                self._take_id(own_id)
                fields.setdefault("task", own_id)
            data = _encode(fields)
            self._check(data, fields)
        except schema.Rejected as error:
            return BadLine(where, str(error))
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            return BadLine(where, f"it cannot be written as JSON: {error}")
        return Submission(data, own_id, fields.get("task") or "")

    def _take_id(self, own_id: Any) -> None:
        if not isinstance(own_id, str):
            raise schema.Rejected(f"id {str(own_id)[:60]!r} must be a text")
        schema.check_name(own_id, "id", schema.TASK_ID)
        if own_id in self._ids:
            raise schema.Rejected(f"id {own_id!r} stands here twice")
        self._ids.add(own_id)

    def _check(self, data: bytes, fields: dict[str, Any]) -> None:
        entry = IntakeEntry(MAIN_INTAKE, "0-1", [])
        known = self._known
        if fields.get("after"):  # whether those exist is for the engine to say
            known = Known(ended_tasks=_names(fields["after"]) - {fields.get("task") or "0-1"})
        case = Case(self._state, 0, entry, self._defaults, known, MAIN_INTAKE, NO_SECRET, data)
        for _ in submissions.submitted(case, schema.decode(data, _submission)):
            pass


def _names(after: Any) -> frozenset[str]:
    if not isinstance(after, list):
        return frozenset()
    return frozenset(x for x in after if isinstance(x, str))  # pyright: ignore[reportUnknownVariableType]


BATCH = 500  # XADDs a round trip


def send(
    bus: Bus, tasks: list[Submission], sent: Callable[[int], object] | None = None
) -> Iterator[str]:
    """Write the tasks to the shared intake; the entry id of each, once it is acknowledged.
    ``sent`` is told after each batch how many are in.

    Raises AsbError saying how many were acknowledged when the connection is lost: what was under
    way then may stand at the intake or not, and is not sent again.
    """
    done = 0
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        try:
            replies = bus.client.pipeline(_xadd(bus.keys.main_intake, task) for task in batch)
        except RedisUnavailable as error:
            raise _lost(error, done, len(batch), len(tasks)) from error
        for reply in replies:
            if isinstance(reply, CommandRefused):
                raise AsbError(
                    f"Redis refused a task after {done:,} of {len(tasks):,}: {reply}",
                    hint="see `asb doctor`",
                )
            done += 1
            yield reply.decode()
        if sent is not None:
            sent(done)


def _xadd(intake: str, submission: Submission) -> Command:
    key = ("id", submission.id) if submission.id else ()
    return ("XADD", intake, "*", "type", "task.submitted", "data", submission.data, *key)


def _lost(error: AsbError, done: int, under_way: int, whole: int) -> AsbError:
    why = str(error).partition("\n")[0]
    if whole == 1:
        message = f"{why}; it is not known whether the task went in"
    else:
        message = (
            f"{why}; {done:,} of {count(whole, 'task')} were acknowledged, "
            f"and of the next {under_way:,} it is not known"
        )
    return AsbError(
        message,
        hint="with --id the same submission can be sent again: what went in is not taken twice",
    )
