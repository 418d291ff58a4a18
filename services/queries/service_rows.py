"""What heartbeats say: which services run, and what goes undone without the others. PURE."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from projections.format import count
from services.queries.stalled import STANDS_STILL, no_engine
from services.store.client import WRONG_TYPE_HINT
from services.store.health import FactRow
from services.store.heartbeat import Beat, missing

# Without these tasks still run; this is what does not happen.
GOES_WITHOUT = {
    "throttle": "no alert is raised",
    "reporter": "no daily report is made",
    "views": "asb:throttle and asb:agents:token:usage stay as they are",
    "progress": "progress documents are not read",
    "alerts": "alerts reach no channel and no hook",
    "usage": "asb:tokens:usage is silent",
    "reports": "reports are not written to their keys",
    "snapshot": "no snapshot is written, so that reading the bus gets slower",
}


def service_rows(running: Collection[Beat]) -> Iterator[FactRow]:
    """Who runs, what nobody runs."""
    processes = {beat.process for beat in running}
    kinds = {beat.service for beat in running}
    runs = f"{count(len(kinds), 'service')} in {count(len(processes), 'process', 'processes')}"
    gone = missing(running)
    if not gone:
        yield ("services", f"{runs}: each has a heartbeat", "ok", "")
    elif any(name in STANDS_STILL for name in gone):
        words, _, hint = no_engine(running).rpartition("; ")
        yield ("services", words, "bad", hint)
    for text in sorted({b.figures["holding"] for b in running if b.figures.get("holding")}):
        yield ("holds", text, "bad", WRONG_TYPE_HINT)
    rest = [name for name in gone if name not in STANDS_STILL]
    if rest and kinds:
        still = "; ".join(f"no {name} runs: {GOES_WITHOUT[name]}" for name in rest)
        yield ("services", still, "warn", f"`asb up`, or `asb service {' '.join(rest)}`")
