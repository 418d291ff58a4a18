"""The measures. Each is taken between two takes of its reference and compared with their mean."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import msgspec

from events.keys import Keys
from services.runtime import initial_policy
from services.store import rebuild
from services.store.client import SyncClient
from tests.bench import reference
from tests.bench.children import settings
from tests.bench.ground import Bus, Ground, bulk_submit, load_now
from tests.bench.history import History
from tests.bench.titles import titles

PAIRS, A_WAVE = 12, 2_000
TAIL = 45_000  # a snapshot is due when its tail exceeds 50,000
STARTUP_EVENTS = 1_000_000


class Spread(msgspec.Struct, frozen=True):
    """What the repeats gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class Figure(msgspec.Struct):
    """One row. ``ratio`` is to the reference beside each repeat; ``at_least``: more is better."""

    name: str
    unit: str
    value: Spread
    aim: float
    aim_text: str
    at_least: bool
    ratio: Spread | None = None
    reference: Spread | None = None
    notes: str = ""
    load: str = ""

    @property
    def reached(self) -> bool:
        figure = (self.ratio or self.value).median
        return figure >= self.aim if self.at_least else figure <= self.aim


class Plan(msgspec.Struct, frozen=True):
    """How much to measure; ``tasks`` and ``events`` 0: as each measure needs."""

    repeats: int = 5
    tasks: int = 0
    events: int = 200_000


def beside(take: Callable[[], float], measure: Callable[[], float], repeats: int) -> list[Spread]:
    """Value, ratio and reference of ``repeats`` takes, each between two of the reference."""
    values: list[float] = []
    ratios: list[float] = []
    references = [take()]
    for _ in range(repeats):
        values.append(measure())
        references.append(take())
        ratios.append(values[-1] / ((references[-2] + references[-1]) / 2))
    return [Spread.of(values), Spread.of(ratios), Spread.of(references)]


def _rate_figure(
    name: str, unit: str, aim: float, spreads: list[Spread], notes: str = ""
) -> Figure:
    value, ratio, against = spreads
    text = f"≥ {aim:g} R"
    return Figure(name, unit, value, aim, text, True, ratio, against, notes, load_now())


# -- submit ------------------------------------------------------------------------------------


def submit(ground: Ground, plan: Plan) -> list[Figure]:
    """Bulk submission from one process, nobody reading."""
    texts = titles(plan.tasks or 50_000)

    def take() -> float:
        keys = ground.keys()
        began = time.monotonic()
        bulk_submit(ground.client, keys, texts)
        elapsed = time.monotonic() - began
        assert ground.client.call("XLEN", keys.main_intake) == len(texts)
        return len(texts) / elapsed

    spreads = beside(ground.rate, take, plan.repeats)
    return [_rate_figure("submit", "tasks/s", 1.0, spreads)]


# -- end to end --------------------------------------------------------------------------------


def e2e(ground: Ground, plan: Plan) -> list[Figure]:
    """First submission to the last task's completion on the log; then the log is folded, and
    must say that every task is complete."""
    count = plan.tasks or 10_000
    costs: list[dict[str, float]] = []

    def take() -> float:
        bus = Bus(ground)
        rate, cost = wave(bus, count)
        costs.append(cost)
        bus.stop()
        return rate

    spreads = beside(ground.rate, take, plan.repeats)
    notes = f"{count:,} tasks; CPU per task, µs: {cpu_text(costs)}"
    return [_rate_figure("e2e", "tasks/s", 0.055, spreads, notes)]


def always(_ground: Ground, plan: Plan) -> list[Figure]:
    """The same where the server has written each turn to disk before it answers."""
    with Ground.open("always") as ground:
        [figure] = e2e(ground, plan)
    figure.name, figure.aim, figure.aim_text = "e2e, fsync always", 0.0, "printed"
    return [figure]


def wave(bus: Bus, count: int) -> tuple[float, dict[str, float]]:
    """Submit ``count`` new tasks and wait until all are done: the rate, and the CPU it took."""
    texts = titles(count, bus.titled)
    bus.titled += count
    cpu, before = bus.cpu(), bus.added
    began = time.monotonic()
    bus.submit(texts)
    elapsed = bus.done(before, count) - began
    cost = {name: (now - cpu[name]) / count * 1e6 for name, now in bus.cpu().items()}
    return count / elapsed, cost


def cpu_text(costs: Sequence[dict[str, float]]) -> str:
    return ", ".join(f"{n} {statistics.median(c[n] for c in costs):.0f}" for n in costs[0])


def paired(buses: Sequence[Bus], count: int) -> Iterator[list[tuple[float, dict[str, float]]]]:
    """Short waves in turn, who comes first in turn, too: what ``wave`` says of each bus, by pair.

    On a shared machine a median of three moves by a fifth; the ratio within a pair does not.
    """
    for pair in range(PAIRS):
        taken = {bus: wave(bus, count) for bus in (buses if pair % 2 else buses[::-1])}
        yield [taken[bus] for bus in buses]


def flat(ground: Ground, plan: Plan) -> list[Figure]:
    """A bus that has done many tasks, beside one that has done none."""
    behind = plan.tasks or 100_000
    old, new = (Bus(ground, keys=keys) for keys in (ground.keys(), ground.more_keys()))
    new.titled = behind - A_WAVE // 2  # in a pair both get the same titles
    wave(new, A_WAVE // 2)
    wave(old, behind)
    takes = list(paired((new, old), A_WAVE))
    for bus in (old, new):
        bus.stop()
    ratios = Spread.of([used[0] / fresh[0] for fresh, used in takes])
    cost = statistics.median(used[1]["engine"] / fresh[1]["engine"] for fresh, used in takes)
    notes = f"{PAIRS} pairs of {A_WAVE:,}, behind {behind:,}; engine CPU a task {cost:.2f} ×"
    return [
        Figure("flat", "× a new bus", ratios, 0.95, "≥ 0.95", True, notes=notes, load=load_now())
    ]


# -- latency -----------------------------------------------------------------------------------


def latency(ground: Ground, plan: Plan) -> list[Figure]:
    """From just before the XADD in this process to the handler's first line in the worker's."""
    hand_offs = [ground.hand_off()]
    takes: list[tuple[float, float]] = []
    for _ in range(plan.repeats):
        takes.append(_spaced(ground))
        hand_offs.append(ground.hand_off())
    found: list[Figure] = []
    for i, (name, aim) in enumerate((("p50", 2.3), ("p99", 3.0))):
        mine, theirs = [t[i] for t in takes], [h[i] for h in hand_offs]
        ratios = [m / ((a + b) / 2) for m, a, b in zip(mine, theirs, theirs[1:], strict=False)]
        found.append(
            Figure(
                f"latency {name}",
                "µs",
                Spread.of(mine),
                aim,
                f"≤ {aim:g} × H's {name}",
                False,
                Spread.of(ratios),
                Spread.of(theirs),
                load=load_now(),
            )
        )
    return found


def _spaced(ground: Ground) -> tuple[float, float]:
    """p50 and p99 in µs of tasks submitted one at a time."""
    bus = Bus(ground)
    encode, intake = msgspec.json.Encoder().encode, bus.keys.main_intake
    sent: dict[str, int] = {}
    for text in titles(reference.WARM_UP + reference.ENTRIES):
        data = encode({"text": text})
        now = time.monotonic_ns()
        task = ground.client.call("XADD", intake, "*", "type", "task.submitted", "data", data)
        sent[task.decode()] = now
        time.sleep(reference.SPACING_S)
    bus.submitted = len(sent)
    bus.done(0, len(sent))
    begun = bus.stop()
    taken = [(begun[task] - at) / 1000 for task, at in sent.items()][reference.WARM_UP :]
    return reference.percentile(taken, 50), reference.percentile(taken, 99)


# -- replay and start --------------------------------------------------------------------------


def replay_log(ground: Ground, plan: Plan) -> list[Figure]:
    """The whole log into events, and into state with every fold, as a host does at its start."""
    with _history(ground, plan.events) as (client, keys, history):

        def read() -> float:
            with quiet_gc():
                began = time.monotonic()
                count = sum(len(events) for events in rebuild.read_log(client, keys))
                elapsed = time.monotonic() - began
            assert count == history.events
            return count / elapsed

        def fold() -> float:
            with quiet_gc():
                began = time.monotonic()
                state = rebuild.rebuild(client, keys, snapshot=False)
                elapsed = time.monotonic() - began
            assert state.meta.events == history.events
            return history.events / elapsed

        notes = f"{history.events:,} events"
        reads = beside(ground.rate, read, plan.repeats)
        folds = beside(ground.rate, fold, plan.repeats)
    return [
        _rate_figure("replay: read, decode", "events/s", 2.5, reads, notes),
        _rate_figure("replay: all folds", "events/s", 1.0, folds, notes),
    ]


def startup(ground: Ground, plan: Plan) -> list[Figure]:
    """Snapshot and tail into a state, with a million events on the log."""
    total = max(plan.events, STARTUP_EVENTS)
    with _history(ground, total - TAIL) as (client, keys, history):
        _, size = rebuild.write_snapshot(client, keys)
        history.grow(TAIL)
        taken: list[float] = []
        for _ in range(plan.repeats):
            with quiet_gc():
                began = time.monotonic()
                state = rebuild.rebuild(client, keys)
                taken.append(time.monotonic() - began)
            assert state.meta.events == history.events
        notes = f"{history.events:,} events, snapshot {size / 1e6:.1f} MB, tail {TAIL:,}"
    return [
        Figure("startup", "s", Spread.of(taken), 1.0, "≤ 1 s", False, notes=notes, load=load_now())
    ]


@contextlib.contextmanager
def _history(ground: Ground, events: int) -> Generator[tuple[SyncClient, Keys, History]]:
    keys, client = ground.keys(), SyncClient(ground.url)
    history = History(client, keys, events, initial_policy.policy(settings(keys.namespace)))
    history.grow(events)
    yield client, keys, history
    client.close()
    ground.keys()


@contextlib.contextmanager
def quiet_gc() -> Generator[None]:
    """No looking for cycles, as a host does while it folds the log, and mostly afterwards."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


MEASURES: dict[str, Callable[[Ground, Plan], list[Figure]]] = {
    "submit": submit,
    "e2e": e2e,
    "latency": latency,
    "replay": replay_log,
    "startup": startup,
    "flat": flat,
}
