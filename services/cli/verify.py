"""What ``asb replay --verify`` and ``asb doctor --deep`` do: the log against everything made of it.

The views are read by GET before the log's end is looked up, so each of them stands for a place that
the walk comes by.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator
from typing import Any

from rich.console import Console
from rich.progress import Progress

from projections.format import count
from services.audit.check import Audit
from services.cli.terminal import say, say_json
from services.client.bus import Bus
from services.queries.verify import (
    BATCHES,
    Advance,
    Check,
    Walk,
    archive_checks,
    check_folds,
    read_views,
)

LONG = 20_000  # events from which on a walk shows how far it has come
SHOWN = 20  # findings shown


# -- replay --verify -----------------------------------------------------------------------------


def verified(bus: Bus, until: str | None, as_json: bool) -> bool:
    """Fold the log again and again, audit it, and say what was found. False when anything is
    not as it should be."""
    views_kept = read_views(bus)
    until = until or bus.last_id()
    began = time.monotonic()
    live = bus.state(until)
    digest = live.digest()
    total = live.meta.events
    bus.check_beginning("the log cannot be folded from its start")
    checks: list[Check] = []
    rates: dict[str, int] = {}
    whole = f"{count(total, 'event')} up to {until}, read in {time.monotonic() - began:.2f} s"
    with _progress(total * (len(BATCHES) + 1), as_json) as advance:
        for size in BATCHES:
            began = time.monotonic()
            check = check_folds(bus, until, size, live, advance)
            rates[f"fold, turns of {size}"] = _rate(total, began)
            checks.append(check)
        walk = Walk(bus, views_kept)
        began = time.monotonic()
        checks += walk.run(until, advance)
        rates["views and audit"] = _rate(total, began)
    checks += archive_checks(bus)
    good = all(check.good for check in checks)
    if as_json:
        say_json(_as_json(until, total, digest, good, checks, rates, walk.audit))
    else:
        say(f"✅ VERIFIED: {whole}" if good else f"🔴 NOT VERIFIED: {whole}: see what is marked")
        _say(checks, rates, walk.audit, digest)
    return good


def _rate(events: int, began: float) -> int:
    return int(events / max(time.monotonic() - began, 1e-6))


def _as_json(
    until: str,
    total: int,
    digest: str,
    good: bool,
    checks: list[Check],
    rates: dict[str, int],
    audit: Audit,
) -> dict[str, Any]:
    return {
        "verified": good,
        "until": until,
        "events": total,
        "digest": digest,
        "checks": checks,
        "events_per_second": rates,
        "audit": {
            "checked": dict(audit.checked),
            "open_holds": audit.open_holds,
            "broken": audit.broken,
            "findings": [f._asdict() for f in audit.findings[:SHOWN]],
        },
    }


def _say(
    checks: list[Check],
    rates: dict[str, int],
    audit: Audit,
    digest: str,
) -> None:
    for check in checks:
        say(f"{'✅' if check.good else '🔴'} {check.name}: {check.value}")
        if check.log_id:
            say(f"   first at {check.log_id}: asb events --since {check.log_id}")
    for finding in audit.findings[1:SHOWN]:
        say(f"   {finding.log_id} {finding.rule}: {finding.text}")
    for name, rate in rates.items():
        say(f"{name}: {rate:,} events/s")
    say(f"holds open: {audit.open_holds:,}")
    say(f"digest {digest}")


@contextlib.contextmanager
def _progress(total: int, as_json: bool) -> Generator[Advance]:
    """A bar on stderr, where somebody looks and it takes long enough to matter."""
    if as_json or total < LONG or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda events: bar.advance(task, events)
