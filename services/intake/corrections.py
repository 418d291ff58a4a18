"""Corrections: an operator changes what an attempt, or a foreign report, was charged. PURE.

They lower usage, so like the policy they are taken from the shared intake stream only. What has
ended can be corrected; of a running attempt the next report would say the old figure again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from events import figures
from events.commands.budgets import CorrectUsage
from events.envelope import Event
from events.money import nanos_of
from events.task import Charge
from events.tokens import TokenParts
from events.usage import UsageCorrected
from projections import charges
from projections.records import RUNNING, ChargedAttempt, Parts
from projections.state import State
from services import ledger
from services.intake.case import Case, takes
from services.intake.schema import Rejected

NANOS_MAX = 10**15  # a million dollars for one attempt
METER = "operator"


class Figure(NamedTuple):
    """What shall have been charged: counted tokens and nano-dollars."""

    tokens: int
    nanos: int


@takes(CorrectUsage)
def corrected(case: Case, order: CorrectUsage) -> Iterable[Event]:
    """The differences that lead from what was charged to what the operator says."""
    case.check_shared("corrections are taken")
    action = _action(order)
    charge = _charge(case.state, order)
    if action != "set" and not charge.is_disputed:
        raise Rejected(f"nothing of {_name(order)} is disputed; --tokens sets another figure")
    wanted = _wanted(case.state, order, action, charge)
    for number, charged in enumerate(_differences(case.state, charge, wanted)):
        if number == 0:
            charged.disputed_tokens = -charge.disputed_tokens
            charged.disputed_nanos = -charge.disputed_nanos
        event = case.event(
            UsageCorrected(
                charge.agent,
                charged,
                charge.task,
                order.attempt,
                action,
                "" if order.attempt else order.task,
                order.reason[:500],
            )
        )
        if number:
            event.id = f"{case.entry.id}.{number}"
        yield event


def _action(order: CorrectUsage) -> str:
    chosen = [
        name
        for name, given in (
            ("set", order.tokens is not None),
            ("accept", order.accept),
            ("drop", order.drop),
        )
        if given
    ]
    if len(chosen) != 1:
        raise Rejected("a correction is exactly one of tokens, accept and drop")
    if not order.reason.strip():
        raise Rejected("a correction needs a reason, for the record")
    if order.tokens is not None and figures.count(order.tokens) is None:
        raise Rejected(f"tokens must be a whole number, not {str(order.tokens)[:40]!r}")
    if order.cost_usd is not None and order.tokens is None:
        raise Rejected("cost_usd goes with tokens")
    return chosen[0]


def _name(order: CorrectUsage) -> str:
    if order.attempt:
        return f"attempt {order.attempt} of task {order.task[:80]}"
    return f"report {order.task[:80]}"


def _charge(state: State, order: CorrectUsage) -> ChargedAttempt:
    """What was charged. Raises Rejected where nothing is known of it, or it may still change."""
    if not order.attempt:
        report = state.disputes.get(order.task)
        if report is None:
            raise Rejected(
                f"{order.task[:80]!r} is no disputed report of foreign work; "
                "of a task the attempt is needed"
            )
        return report
    task = state.tasks.get(order.task)
    if task is not None and task.attempt == order.attempt and task.status in RUNNING:
        raise Rejected(f"{_name(order)} still runs; correct it when it has ended")
    charge = charges.of_attempt(state, order.task, order.attempt)
    if charge is None:
        raise Rejected(f"{_name(order)} is unknown, or ended too long ago to be corrected")
    return charge


def _wanted(state: State, order: CorrectUsage, action: str, charge: ChargedAttempt) -> Figure:
    if action == "drop":
        return Figure(charge.tokens, charge.nanos)
    reported = Figure(charge.tokens + charge.disputed_tokens, charge.nanos + charge.disputed_nanos)
    if action == "accept":
        return reported
    tokens = figures.count(order.tokens) or 0
    if order.cost_usd is not None:
        return Figure(tokens, _nanos(order.cost_usd))
    if reported.tokens > 0:  # the money follows what was reported, rounded half up
        return Figure(
            tokens, (2 * reported.nanos * tokens + reported.tokens) // (2 * reported.tokens)
        )
    priced = ledger.charge(
        state, agent=charge.agent, model=charge.newest.model, usage=TokenParts(input_tokens=tokens)
    )
    return Figure(tokens, priced.nanos)


def _nanos(value: Any) -> int:
    try:
        nanos = nanos_of(value)
    except ValueError as error:
        raise Rejected(f"cost_usd: {error}") from None
    if not 0 <= nanos <= NANOS_MAX:
        raise Rejected(f"cost_usd must be from 0 to a million dollars, not {str(value)[:40]}")
    return nanos


# -- where it was charged ------------------------------------------------------------------------


def _differences(state: State, charge: ChargedAttempt, wanted: Figure) -> Iterator[Charge]:
    """One charge for each mark that changes, the newest first; at least one.

    What is added belongs to the newest. What is given back is taken from the newest as far as that
    goes, then from those before it, so that no window is left below zero.
    """
    tokens, nanos = wanted.tokens - charge.tokens, wanted.nanos - charge.nanos
    changes, tokens, nanos = charges.given_back(charge.marks, tokens, nanos)
    first = changes[0] if changes else (charge.newest, 0, 0)
    changes[:1] = [(first[0], first[1] + tokens, first[2] + nanos)]
    changes = [changes[0], *(change for change in changes[1:] if change[1] or change[2])]
    left = _parts_added(charge, wanted.tokens, state.policy.cache_read_weight_percent)
    whole = wanted.tokens - charge.tokens
    for number, (mark, more_tokens, more_nanos) in enumerate(changes):
        last = number == len(changes) - 1
        parts = left if last else _share(left, more_tokens, whole)
        left = (left[0] - parts[0], left[1] - parts[1], left[2] - parts[2], left[3] - parts[3])
        whole -= more_tokens
        yield Charge(
            agent=charge.agent,
            model=mark.model,
            worker=charge.worker,
            project=charge.project,
            kind=charge.kind,
            input_tokens=parts[0],
            output_tokens=parts[1],
            cache_read_tokens=parts[2],
            cache_write_tokens=parts[3],
            tokens=more_tokens,
            nanos=more_nanos,
            book=state.policy.book,
            meter=METER,
            window_at=mark.at,
            day_at=mark.day_at,
        )


def _parts_added(charge: ChargedAttempt, tokens: int, weight: int) -> Parts:
    """How the parts change: in proportion, as far as parts were reported at all."""
    had = charge.tokens
    if had <= 0 or not any(charge.parts):
        return (tokens - had if not charge.estimated_tokens else tokens), 0, 0, 0
    scaled = [part * tokens // had for part in charge.parts]
    if TokenParts(*charge.parts).counted(weight) == had:
        scaled[0] += tokens - TokenParts(*scaled).counted(weight)
    return (
        scaled[0] - charge.parts[0],
        scaled[1] - charge.parts[1],
        scaled[2] - charge.parts[2],
        scaled[3] - charge.parts[3],
    )


def _share(parts: Parts, amount: int, whole: int) -> Parts:
    if not whole:
        return charges.NO_PARTS
    return (
        parts[0] * amount // whole,
        parts[1] * amount // whole,
        parts[2] * amount // whole,
        parts[3] * amount // whole,
    )
