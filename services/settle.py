"""What an attempt is booked at. PURE; used wherever an attempt ends."""

from __future__ import annotations

from msgspec.structs import replace

from events.money import Usage, cost_nanos
from events.task import Booking
from projections.policy import BOOK, quote
from projections.state import State
from projections.tasks import PastAttempt, Task
from services.turn import Defaults


def booking(
    state: State,
    *,
    agent: str,
    model: str,
    usage: Usage,
    own_cost: int | None = None,
    fallback_nanos: int = 0,
) -> Booking:
    """``usage`` priced by the book. An unknown price takes the agent's own figure, else
    ``fallback_nanos`` (the hold), and is flagged."""
    weight = state.policy.cache_read_weight_percent
    found = quote(state, model)
    if found is not None:
        nanos, source = cost_nanos(usage, found.price, weight), found.source
    elif own_cost is not None:
        nanos, source = own_cost, "agent"
    else:
        nanos, source = fallback_nanos, "unknown"
    return Booking(
        agent=agent,
        model=model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        tokens=usage.counted(weight),
        nanos=nanos,
        book=state.policy.book,
        unpriced=found is None and own_cost is None,
        price="" if source == BOOK else source,
    )


def settled(
    state: State,
    task: Task,
    usage: Usage | None,
    *,
    model: str = "",
    own_cost: int | None = None,
    meter: str = "driver",
) -> Booking:
    """The last booking of the running attempt: its usage less what was booked before, or, when
    nobody knows it, the rest of the hold, marked as estimated."""
    model = model or task.run_model
    if usage is None and task.used is not None and task.used.meter == "progress":
        # Its agent's running totals are a meter: what they told stands, nothing is estimated.
        found = Booking(agent=task.run_agent, model=model, book=state.policy.book, meter="progress")
    elif usage is None:
        tokens, nanos = task.hold_left
        found = Booking(
            agent=task.run_agent,
            model=model,
            tokens=tokens,
            nanos=nanos,
            book=state.policy.book,
            estimated=True,
            meter="estimate",
            unpriced=quote(state, model) is None,
        )
    else:
        found = booking(
            state,
            agent=task.run_agent,
            model=model,
            usage=usage,
            own_cost=own_cost,
            fallback_nanos=task.hold_nanos,
        )
        if task.used is not None:
            found = _not_negative(less(found, task.used))
        found.meter = meter
    found.worker, found.project, found.kind = task.worker, task.project, task.kind
    found.tasks = 1
    return found


def unstarted(task: Task) -> Booking:
    """An attempt that never started costs nothing."""
    return Booking(task.run_agent, task.run_model, task.worker, task.project, task.kind)


def late(state: State, past: PastAttempt, usage: Usage) -> Booking:
    """A late actual: it takes the place of what was estimated for that attempt, in its window and
    in its scopes. What a meter had measured before is not taken back."""
    found = booking(
        state,
        agent=past.agent,
        model=past.model,
        usage=usage,
        fallback_nanos=past.nanos,
    )
    before = past.parts or Booking(past.agent, past.model, past.worker)
    more = less(found, before)
    return replace(
        more,
        **{part: max(0, getattr(more, part)) for part in _PARTS},
        tokens=max(-past.estimated_tokens, more.tokens),
        nanos=max(-past.estimated_nanos, more.nanos),
        worker=past.worker,
        project=before.project,
        kind=before.kind,
        meter="driver",
        window_at=past.at if before.estimated else 0,
    )


_PARTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _not_negative(b: Booking) -> Booking:
    """Within an attempt totals only rise: a meter that falls back takes nothing away."""
    return replace(b, **{f: max(0, getattr(b, f)) for f in (*_PARTS, "tokens", "nanos")})


def less(actual: Booking, before: Booking) -> Booking:
    """``actual`` less what was booked before."""
    return replace(
        actual,
        input_tokens=actual.input_tokens - before.input_tokens,
        output_tokens=actual.output_tokens - before.output_tokens,
        cache_read_tokens=actual.cache_read_tokens - before.cache_read_tokens,
        cache_write_tokens=actual.cache_write_tokens - before.cache_write_tokens,
        tokens=actual.tokens - before.tokens,
        nanos=actual.nanos - before.nanos,
    )


def backoff_us(defaults: Defaults, attempt: int) -> int:
    """How long to wait after ``attempt`` failed, µs: doubling, up to a bound."""
    return min(defaults.backoff_s << min(attempt - 1, 30), defaults.backoff_max_s) * 1_000_000
