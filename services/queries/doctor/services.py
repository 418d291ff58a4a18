"""What heartbeats say: which services run, and what goes undone without the others. PURE."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from projections.format import count
from services.queries.missing import STANDS_STILL, MissingPart, missing
from services.queries.stalled import no_engine
from services.store.health import FactRow
from services.store.heartbeat import DECIDES, PROJECTS, Beat
from services.store.replies import WRONG_TYPE_HINT

# Without these tasks still run; this is what does not happen.
GOES_WITHOUT = {
    MissingPart("throttle", DECIDES): "no alert is raised",
    MissingPart("reports", DECIDES): "no daily report is made",
    MissingPart("throttle", PROJECTS): "asb:throttle stays as it is, alerts go nowhere",
    MissingPart("reports", PROJECTS): "reports are not written to their keys",
    MissingPart("progress", PROJECTS): "progress documents are not read",
    MissingPart("usage", PROJECTS): "asb:agents:token:usage and asb:tokens:usage stand still",
    MissingPart("snapshots", PROJECTS): "no snapshot is written: reading gets slower",
    MissingPart("archive", PROJECTS): "the log in Redis grows: nothing old is archived",
}


def service_rows(running: Collection[Beat]) -> Iterator[FactRow]:
    """Who runs, what nobody runs."""
    processes = {beat.process for beat in running}
    kinds = {beat.service for beat in running}
    runs = f"{count(len(kinds), 'service')} in {count(len(processes), 'process', 'processes')}"
    gone = missing(running)
    if not gone:
        yield ("services", f"{runs}: each has a heartbeat", "ok", "")
    elif any(part in STANDS_STILL for part in gone):
        words, _, hint = no_engine(running).rpartition("; ")
        yield ("services", words, "bad", hint)
    for text in sorted(
        {beat.figures["holding"] for beat in running if beat.figures.get("holding")}
    ):
        yield ("holds", text, "bad", WRONG_TYPE_HINT)
    rest = [part for part in gone if part not in STANDS_STILL]
    if rest and kinds:
        still = "; ".join(f"nobody {part}: {GOES_WITHOUT[part]}" for part in rest)
        names = dict.fromkeys(part.service for part in rest)
        yield ("services", still, "warn", f"`asb up`, or `asb service {' '.join(names)}`")
