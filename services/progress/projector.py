"""Progress documents, out of Redis onto the log and back as views: wiring only.

``Documents`` keeps the views and takes in what agents wrote over them. Who tells it where to look
(``services/progress/watch.py``) never takes anything itself, so there is one rule for what is new:

- A value that carries our mark is a view of ours. Anything else is a document of an agent.
- A document is new unless it is the newest one taken and its view was not written since.
- It goes to the intake together with the log id of the newest one taken; the engine takes it
  only if that is still so. Whoever read too early or twice changes nothing, and looks again when
  the log moves on.
- A view replaces only the very value that was read, and only if that value is no news.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import anyio
import msgspec

from events import document
from events.envelope import Event, beside
from events.keys import Keys
from events.secrets import masked
from events.usage import ProgressUpdated
from events.words import keyed_digest, mark_of
from projections import progress, progress_view
from projections.records import Progress
from projections.state import State
from services.progress import marks
from services.projector import Reader
from services.runtime.errors import CommandRefused, RedisUnavailable
from services.store.carried import entries_now_at
from services.store.client import Client
from services.store.log import after
from services.store.rebuild import decoded
from services.store.replies import Command
from services.store.scripts import script
from services.store.secret import Secret

PAUSE_S = 0.1  # views are written at most this often
BATCH = 100
SLACK = 2_048  # bytes that a view may be longer than the longest document
ENDED_KEPT_S = 30 * 86_400
UNREADABLE_KEPT_S = 35 * 86_400
REMEMBERED = 20_000  # keys of which something is kept here, before it is looked through
AT_HAND_BYTES_MAX = 32_000_000  # documents that wait for their views


Stale: TypeAlias = tuple[str, bytes, Progress]  # a name, the value there, the newest document


class Swap(msgspec.Struct):
    """One view on its way: ``before`` is the value it replaces."""

    name: str
    record: Progress
    before: bytes
    view: bytes
    expires_s: int


class Value(NamedTuple):
    """What stands at a name; and as of *before* it was read, the newest document taken from there
    and the one whose view was known to stand there. What is taken or written while a read is under
    way says nothing about what that read got."""

    name: str
    raw: bytes | None
    newest: Progress | None
    written: str


class Documents(Reader):
    """The projector of ``asb:progress:*``. ``most`` is the largest document in bytes."""

    def __init__(self, client: Client, keys: Keys, bound: int) -> None:
        super().__init__()
        self._client, self._keys, self._largest = client, keys, bound
        self._secret, self._key_of_marks = Secret(client, keys), b""
        self._at_hand: dict[str, tuple[str, bytes]] = {}  # name -> log id and newest document
        self._names: dict[str, set[str]] = {}  # task -> names of its records
        self._dirty: dict[str, None] = {}
        self._looks: dict[str, None] = {}
        self._at_hand_bytes = 0
        self._written: dict[str, str] = {}  # name -> log id of the document whose view is there
        self._sent: dict[str, tuple[str, str]] = {}
        self._look_wake = anyio.Event()

    # -- what to write -------------------------------------------------------------------------

    def feed(self, events: Sequence[Event], state: State) -> None:
        """Views change with their documents, and with the tasks they are about."""
        super().restored(state)
        for event in events:
            payload = event.data
            if type(payload) is ProgressUpdated:
                name = progress.key_of(payload.agent, payload.task)
                self._keep(name, event.log_id, _document_of(event))
                self._names.setdefault(payload.task, set()).add(name)
                self._dirty[name] = None
            else:
                for name in self._names.get(getattr(payload, "task", ""), ()):
                    self._dirty[name] = None
        if self._dirty:
            self.wake()

    def restored(self, state: State) -> None:
        """The state was rebuilt, or Redis was away: look at every view again."""
        super().restored(state)
        for kept in (self._at_hand, self._written, self._sent):
            kept.clear()
        self._name_all(state)
        self._dirty.update(dict.fromkeys(state.progress))
        if self._dirty:
            self.wake()

    def _name_all(self, state: State) -> None:
        self._names.clear()
        for name in state.progress:
            self._names.setdefault(name.partition(":")[2], set()).add(name)

    def _keep(self, name: str, log_id: str, raw: bytes) -> None:
        """Keep a document until its view is written; what there is no room for is fetched."""
        self._at_hand_bytes += len(raw)
        if self._at_hand_bytes > AT_HAND_BYTES_MAX:
            self._at_hand.clear()
            self._at_hand_bytes = len(raw)
        self._at_hand[name] = (log_id, raw)

    def _bound(self) -> None:
        """Forget names of which the state has forgotten more than there are."""
        for kept in (self._written, self._sent):
            if len(kept) > REMEMBERED:
                for name in [n for n in kept if n not in self._state.progress]:
                    del kept[name]
        if len(self._names) > REMEMBERED:
            self._name_all(self._state)

    async def flush(self, woken: bool) -> None:
        """Write the views that are stale."""
        while self._dirty:
            names = list(self._dirty)[:BATCH]
            for name in names:
                del self._dirty[name]
            try:
                written = await self._write(names)
            except BaseException:
                self._dirty.update(dict.fromkeys(names))
                raise
            await anyio.sleep(PAUSE_S if written else 0)
        self._bound()

    async def _write(self, names: list[str]) -> bool:
        """Write the views of these names as far as they changed; whether any had."""
        values = await self._read(names)
        state = await self.settled()
        stale: list[Stale] = []
        news: list[Value] = []
        for read in values:
            name, value = read.name, read.raw
            record = state.progress.get(name)
            if record is None or value is None:
                continue
            ours = marks.ours(self._key(name), value)
            if ours is not None:
                if self._is_stale(state, name, record, value, ours):
                    stale.append((name, value, record))
            elif value and self._is_news(read):
                news.append(read)
            else:
                stale.append((name, value, record))
        await self._take(news)
        stale = await self._without_forgotten(state, stale)
        await self._swap(await self._rendered(stale))
        return bool(stale)

    async def _without_forgotten(self, state: State, stale: list[Stale]) -> list[Stale]:
        """The views to write; what stands there of a forgotten task goes."""
        gone = [s for s in stale if s[0].partition(":")[2] in state.forgotten]
        for name, value, _ in gone:
            self._at_hand.pop(name, None)
            if value:
                before = hashlib.sha1(value).hexdigest()
                await script("swap")(self._client, [self._key(name)], [before, "", 1])
        return [s for s in stale if s not in gone] if gone else stale

    def _is_stale(
        self, state: State, name: str, record: Progress, value: bytes, ours: marks.Ours
    ) -> bool:
        """Whether a view of ours says something else than we would; one from further on does not
        count: another host is ahead."""
        if ours.document == record.log_id:
            self._written[name] = record.log_id
        return not after(ours.as_of, state.meta.log_id) and not marks.says(
            value, self._facts(state, name, record)
        )

    def _facts(self, state: State, name: str, record: Progress) -> dict[str, Any]:
        agent, _, task = name.partition(":")
        return progress_view.facts(state, agent, task, record)

    async def _rendered(self, stale: list[Stale]) -> list[Swap]:
        """The views to write. One whose document is not there (any more) is left alone: it was
        trimmed, or another was taken meanwhile, and ``feed`` has named it again."""
        raw = await self._documents(stale)
        state = await self.settled()
        swaps: list[Swap] = []
        for name, value, record in stale:
            if not raw.get(name) or state.progress.get(name) != record:
                continue
            view = marks.render(self._key(name), raw[name], self._facts(state, name, record))
            over = progress_view.is_over(state, name.partition(":")[2], record)
            swaps.append(Swap(name, record, value, view, ENDED_KEPT_S if over else 0))
        return swaps

    async def _documents(self, stale: list[Stale]) -> dict[str, bytes]:
        """The documents themselves; those that are not at hand come from the log."""
        documents: dict[str, bytes] = {}
        places: dict[str, str] = {}
        for name, _, record in stale:
            log_id, raw = self._at_hand.pop(name, ("", b""))
            if log_id == record.log_id:
                documents[name] = raw
            else:
                places[name] = record.log_id
        if not self._at_hand:
            self._at_hand_bytes = 0
        there = await entries_now_at(self._client, self._keys, places.values())
        for name, place in places.items():
            if place in there:
                documents[name] = _document_of(decoded([there[place]])[0])
        return documents

    async def _swap(self, swaps: list[Swap]) -> None:
        for swap in swaps:
            before = hashlib.sha1(swap.before).hexdigest() if swap.before else ""
            done = await script("swap")(
                self._client, [self._key(swap.name)], [before, swap.view, swap.expires_s]
            )
            if done:
                self._written[swap.name] = swap.record.log_id
            else:
                self._dirty[swap.name] = None  # somebody wrote meanwhile: read that first

    # -- what to take --------------------------------------------------------------------------

    def look(self, names: Iterable[str]) -> None:
        """Something was written under these names (``<agent>:<task>``)."""
        self._looks.update(dict.fromkeys(names))
        if self._looks:
            self._look_wake.set()

    async def take(self) -> None:
        """Wait for names to look at, and take in what stands there."""
        await self._look_wake.wait()
        self._look_wake = anyio.Event()
        while self._looks:
            names = list(self._looks)[:BATCH]
            for name in names:
                del self._looks[name]
            try:
                await self.read_and_take(names)
            except BaseException:
                self.look(names)
                raise

    async def read_and_take(self, names: list[str]) -> None:
        """Read these keys and send to the intake what is new in them. Raises RedisUnavailable."""
        values = await self._read(names)
        state = await self.settled()
        news: list[Value] = []
        for read in values:
            name, value = read.name, read.raw
            if not value:
                continue
            record = state.progress.get(name)
            ours = marks.ours(self._key(name), value)
            if ours is None:
                if self._is_news(read):
                    news.append(read)
                else:
                    self._dirty[name] = None
                    self.wake()
            elif record is not None and ours.document == record.log_id:
                self._written[name] = record.log_id
        await self._take(news)
        self._bound()

    def _is_news(self, read: Value) -> bool:
        """Whether a value that is not ours still has to be taken in. What equals the newest
        document is that one, until a view was put in its place."""
        newest = read.newest
        if newest is None or newest.digest != self._digest(document.as_json(read.raw or b"")):
            return True
        return read.written == newest.log_id

    async def _take(self, news: list[Value]) -> None:
        """Send ``news`` to the intake, each once as long as nothing else is taken from its key."""
        fresh: list[tuple[str, bytes, str]] = []
        for read in news:
            name, raw = read.name, document.as_json(read.raw or b"")
            newest = read.newest.log_id if read.newest else ""
            mark = self._digest(raw), newest
            if self._sent.get(name) != mark:
                self._sent[name] = mark  # before anything is awaited: another loop may look too
                fresh.append((name, raw, newest))
        try:
            commands = [entry for item in fresh if (entry := await self._entry(*item))]
            for reply in await self._client.pipeline(commands):
                _accepted(reply)
        except BaseException:
            for name, _, _ in fresh:
                self._sent.pop(name, None)
            raise

    async def _entry(self, name: str, raw: bytes, newest: str) -> Command | None:
        """What goes to the intake for a value: the document, or once that it is none."""
        agent, _, task = name.partition(":")
        wrong = document.problem(agent, task, raw, self._largest)
        if not wrong:
            return self._document(agent, task, raw, newest)
        return self._unreadable(agent, task, raw, wrong) if await self._first(name, raw) else None

    def _document(self, agent: str, task: str, raw: bytes, newest: str) -> Command:
        """A document for the intake, spliced in as it was written."""
        head = msgspec.json.encode({"agent": agent, "task": task, "newest": newest})
        data = head[:-1] + b',"document":' + raw + b"}"
        content = f"{agent}:{task}\0{newest}\0{self._digest(raw)}"
        entry_id = "progress:" + keyed_digest(content.encode(), self._key_of_marks)
        return (
            *("XADD", self._keys.main_intake, "*", "type", "progress.updated"),
            *("id", entry_id, "data", data),
        )

    def _unreadable(self, agent: str, task: str, raw: bytes, wrong: str) -> Command:
        """What is no document still goes to the intake: it becomes a dead letter with the
        reason."""
        shown = masked(raw.decode("utf-8", "replace"))[:1000]
        data = {"agent": agent, "task": task, "document": shown, "unreadable": wrong}
        return (
            *("XADD", self._keys.main_intake, "*", "type", "progress.updated"),
            *("data", msgspec.json.encode(data)),
        )

    async def _first(self, name: str, raw: bytes) -> bool:
        """Whether this value was not reported yet; restarts and other hosts included."""
        digest = keyed_digest(name.encode() + b"\0" + raw, self._key_of_marks)
        mark = self._keys.unreadable(digest)
        return bool(await self._client.call("SET", mark, 1, "NX", "EX", UNREADABLE_KEPT_S))

    # -- both ----------------------------------------------------------------------------------

    def _digest(self, raw: bytes) -> str:
        """Names a document, as the mark of its event does."""
        return mark_of(msgspec.Raw(raw), self._key_of_marks).digest

    def _key(self, name: str) -> str:
        return self._keys.progress_prefix + name

    async def _read(self, names: list[str]) -> list[Value]:
        """The values under these names, b"" where there is none, None where it is no string. What
        is longer than any document is read only so far."""
        self._key_of_marks = await self._secret.value()
        state = await self.settled()
        before = [(state.progress.get(name), self._written.get(name, "")) for name in names]
        bound = self._largest + SLACK
        replies: list[Any] = await self._client.pipeline(
            ("GETRANGE", self._key(name), 0, bound) for name in names
        )
        return [
            Value(name, None if _is_other_type(reply) else _accepted(reply), *known)
            for name, reply, known in zip(names, replies, before, strict=True)
        ]


def _document_of(event: Event) -> bytes:
    """The document as its agent wrote it; b"" where it was taken out of the log."""
    document = beside(event).words.get("document")
    return bytes(document) if document is not None else b""


def _is_other_type(reply: Any) -> bool:
    return isinstance(reply, CommandRefused) and str(reply).startswith("WRONGTYPE")


def _accepted(reply: Any) -> Any:
    """``reply``, if it is one. A refusal (full, loading) may be over later: RedisUnavailable."""
    if isinstance(reply, CommandRefused):
        raise RedisUnavailable(f"Redis refused: {reply}")
    return reply
