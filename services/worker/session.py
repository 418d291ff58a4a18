"""One session of a worker: from joining until it is over.

Three loops under one task group: the reader starts tasks and cancels them as the inbox says, the
lease is renewed, and the caller's ``stop`` ends both gracefully. Whatever ends a session, ``run``
returns only when everything it started is gone.

::

    joined ──► serving ──► STOPPED     asked to; running tasks had their grace
        │             ├──► LOST        the engine, or a server that went back, no longer knows it
        │             ├──► LEASE_OVER  no renewal for so long that the engine may give it up
        │             └──► TAKEN_OVER  another worker has its name now
        └────────────────► REFUSED     its name belongs to another worker, which is alive
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import anyio
import anyio.lowlevel

from events.keys import Keys
from events.trace import traceparent
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable, RedisUnsuitable
from services.runtime.failpoints import point
from services.store.client import Client
from services.worker import messages
from services.worker.attempt import Attempt, Ending, Why, ends_at, key_of, report
from services.worker.continuity import clock_is_off, last_id, order, still_there
from services.worker.dispatches import Dispatches
from services.worker.identity import death_of, heartbeat
from services.worker.lease import RETRY_S, Lease, holder_of
from services.worker.outbox import Outbox
from services.worker.server_time import ServerTime
from services.worker.task import PROGRESS_BYTES, AgentKeeper, Result, Task, WorkerOptions

log = logging.getLogger("asb.worker")

READ_COUNT = 500
BLOCK_S = 10.0  # a reader without news looks around this often: is the stream still the one it was?
WAITING_MAX = 10_000  # dispatched beyond capacity: the reader pauses
CANCEL_AGAIN_S = 5.0
AHEAD_S = 60.0  # how long before its deadline a task gets a timer


class Session:
    """See the module. Create with ``Session.join``."""

    def __init__(
        self, options: WorkerOptions, keys: Keys, client: Client, outbox: Outbox, lease: Lease
    ) -> None:
        self.id = lease.session
        self.lease = lease
        self.refusal: dict[bytes, bytes] = {}  # why it was REFUSED, as the inbox says it
        self._session = lease.session.encode()
        self._options = options
        self._driver = options.driver
        self._client = client
        self._outbox = outbox
        self._namespace = keys.namespace
        self._inbox = keys.inbox(options.name)
        self._intake = keys.intake(options.intake)
        self._loop = asyncio.get_running_loop()
        self._clock = ServerTime(client)
        self._cursor = b"0-0"
        self._jobs: dict[bytes, Attempt] = {}
        self._waiting: deque[Attempt] = deque()
        self._running = 0
        self._dispatches = Dispatches()
        self._held: set[bytes] = set()  # attempts of an earlier session that its agent still runs
        self._ending: Ending | None = None
        self._over = asyncio.Event()
        self._idle, self._spare = asyncio.Event(), asyncio.Event()
        self._stopping = False

    @classmethod
    async def join(
        cls,
        options: WorkerOptions,
        keys: Keys,
        client: Client,
        outbox: Outbox,
        *,
        instance: str,
        take_over: bool = False,
    ) -> Session:
        """Ask for the name; the id of that entry is the session.

        The same ``instance`` may ask again and again: that is one worker. Raises RedisUnavailable
        (the outcome is unknown), and AsbError when the intake stream cannot be written to.
        """
        began = asyncio.get_running_loop().time()
        key, intake = keys.worker(options.name), keys.intake(options.intake)
        holder = await holder_of(client, key)
        evidence = ""
        if holder is not None and holder.instance != instance:
            evidence = death_of(holder, options.keeper)
        said = f"{holder.session} {evidence}" if holder is not None and evidence else ""
        keeper = options.driver if isinstance(options.driver, AgentKeeper) else None
        holds = keeper.holds() if keeper else ()
        kind, data, *_ = messages.joined(options, instance, said, take_over, holds)
        try:
            session = await client.call("XADD", intake, "*", "type", kind, "data", data)
        except CommandRefused as error:
            raise AsbError(
                f"the intake stream {intake} refuses this worker: {error}",
                hint=f"look at the key {intake}: it has to be a stream",
            ) from error
        if keeper:
            keeper.joined()
        mine = heartbeat(session.decode(), instance, options.keeper)
        ours = bool(said) or take_over or (holder is not None and holder.instance == instance)
        lease = Lease(options, client, key, mine, began=began, replaces=ours)
        opened = cls(options, keys, client, outbox, lease)
        opened._held = {f"{held.task}\0{held.attempt}".encode() for held in holds}
        return opened

    # -- the life of the session -------------------------------------------------------------

    async def run(self, stop: anyio.Event) -> Ending:
        """Serve until ``stop`` or until the session is over, and end everything before returning.

        Raises RedisUnsuitable or AsbError when this worker cannot work at all.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_alive)
                group.start_soon(self._read)
                group.start_soon(self._watch_deadlines)
                group.start_soon(self._stop_gracefully, stop)
                await self._over.wait()
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end_everything()
        return self._ending or Ending.STOPPED

    def _finish(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._over.set()

    async def _stop_gracefully(self, stop: anyio.Event) -> None:
        """Let what runs go on for the grace; start nothing more. What is dispatched meanwhile is
        given back at the very end: given back at once, it would come again, and again."""
        await stop.wait()
        self._stopping = True
        if self._running:
            with anyio.move_on_after(self._options.grace_s):
                await self._idle.wait()
        self._finish(Ending.STOPPED)

    async def _end_everything(self) -> None:
        ending = self._ending or Ending.STOPPED
        self._ending = ending
        self._stopping = True
        for job in list(self._jobs.values()):
            self._end(job, Why.SESSION_OVER)
        while handles := [j.handle for j in self._jobs.values() if j.handle is not None]:
            await asyncio.wait(handles, timeout=CANCEL_AGAIN_S)
            for job in list(self._jobs.values()):
                log.warning("task %s does not end: cancelling it again", job.task.id)
                if job.handle is not None:
                    job.handle.cancel()
        self._outbox.wake()

    # -- the heartbeat -----------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        await self.lease.keep(self._clock.read)
        self._finish(Ending.LEASE_OVER)

    # -- the inbox ---------------------------------------------------------------------------

    async def _read(self) -> None:
        await self._clock.known()
        doubt = False
        while True:
            await self._outbox.wait_for_room()
            if len(self._waiting) > WAITING_MAX:
                self._spare.clear()
                await self._spare.wait()
            try:
                entries = [] if doubt else await self._read_some()
            except RedisUnavailable:
                entries, doubt = [], True
            except CommandRefused as error:
                raise AsbError(
                    f"the inbox cannot be read: {error}", hint=f"look at the key {self._inbox}"
                ) from error
            if doubt := doubt or self._outbox.away:  # nothing is read before the past is known
                await anyio.sleep(RETRY_S)
                doubt = not await self._look_around()
            elif entries:
                if entries[-1][0] != self._cursor:  # not taken: the clock was off
                    await self._clock.known(again=True)
                    self._take(entries)
                await anyio.lowlevel.checkpoint()  # what has come begins before more is asked for
            else:
                await self._look_around()

    async def _read_some(self) -> list[Any]:
        block = int(min(BLOCK_S, self._options.lease_s / 4) * 1000)
        reply = await self._client.block(
            "XREAD", "COUNT", READ_COUNT, "BLOCK", block, "STREAMS", self._inbox, self._cursor,
            listener=self._arrived,
        )  # fmt: skip
        return reply[0][1] if reply else []

    def _arrived(self, reply: Any) -> None:
        """What comes begins within the reply that brings it, if the clock can be trusted."""
        if reply and not clock_is_off(reply[0][1], self._clock.now()):
            self._take(reply[0][1])

    async def _look_around(self) -> bool:
        """Did the server go back (a torn file, a failover)? Redis itself gives no sign of it.

        False when it does not answer. Nobody sends a lost report again: a new session makes up.
        """
        losses = self._client.losses
        try:
            inbox = await last_id(self._client, self._inbox)
            kept = await still_there(
                self._client, self._intake, max(self._session, self._outbox.last_acked, key=order)
            )
        except RedisUnavailable:
            return False
        except RedisUnsuitable:  # without the right to look: the engine will say when we are lost
            self._outbox.back(losses)
            return True
        if inbox is not None and order(inbox) < order(self._cursor):
            self._cursor = b"0-0"  # rewritten: what was seen already is known as such
        self._outbox.back(losses)
        if not kept:
            log.warning("the server has lost what this worker told it last")
            self._finish(Ending.LOST)
        return True

    def _take(self, entries: list[Any]) -> None:
        for entry_id, flat in entries:
            if flat is None:
                continue
            fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=False))
            if fields.get(b"session") == self._session or key_of(fields) in self._held:
                self._take_entry(fields)
            self._cursor = entry_id

    def _take_entry(self, fields: dict[bytes, bytes]) -> None:
        fields[b"session"] = self._session  # what is still held goes on in this one
        kind = fields.get(b"type")
        if kind in (b"task.dispatched", b"task.forgotten"):
            self._take_task(fields)
        elif kind in (b"task.cancel_requested", b"task.requeued"):
            self._take_cancel(fields)
        elif kind in (b"hold.refused", b"hold.extended"):
            job = self._jobs.get(key_of(fields))
            if job is not None:
                job.task.hold_changed(fields)
        elif kind == b"worker.lost":
            self._finish(Ending.TAKEN_OVER if fields.get(b"taken_by") else Ending.LOST)
        elif kind == b"worker.refused":
            self.refusal = fields
            self._finish(Ending.REFUSED)

    def _take_task(self, fields: dict[bytes, bytes]) -> None:
        key = key_of(fields)
        if not self._dispatches.is_new(fields) or key in self._jobs:
            return  # an attempt that runs still answers a dispatch anew, too
        try:
            task = Task(
                fields, worker=self._options.name, send=self._send_progress, spend=self._send_spent
            )
            task.traceparent = traceparent(self._namespace, task.id, task.attempt)
        except ValueError as error:
            log.error("an entry of the inbox is not a task (%s): %r", error, fields)
            return
        point("worker.received")
        self.lease.accepted()
        job = Attempt(key, task)
        job.ends_at = ends_at(task, self._loop.time(), self._clock.ahead)
        self._jobs[key] = job
        if fields[b"type"] == b"task.forgotten":  # its text is gone: nothing is run
            self._take_cancel(fields)
        elif self._running < self._options.capacity and not self._stopping:
            self._start(job)
        else:
            self._waiting.append(job)

    def _take_cancel(self, fields: dict[bytes, bytes]) -> None:
        job = self._jobs.get(key_of(fields))
        if job is not None:
            reason = fields.get(b"reason", b"").decode("utf-8", "replace")
            job.task.cancel_reason = reason or "taken back by the engine"
            self._end(job, Why.CANCELLED)

    # -- attempts ----------------------------------------------------------------------------

    def _start(self, job: Attempt) -> None:
        job.began_at = self._loop.time()
        if job.ends_at < job.began_at + AHEAD_S:
            self._set_timer(job)
        self._running += 1
        # A bare asyncio task: a task group's costs several times as much, and every one of them
        # is awaited in _end_everything, which nothing can skip.
        job.handle = self._loop.create_task(self._run(job))

    def _set_timer(self, job: Attempt) -> None:
        job.timer = self._loop.call_at(job.ends_at, self._end, job, Why.TIMED_OUT)

    async def _watch_deadlines(self) -> None:
        """A timer for each task whose deadline is near. Most tasks end long before theirs, and a
        timer costs a tenth of what a short task costs in all."""
        while True:
            await anyio.sleep(AHEAD_S / 2)
            near = self._loop.time() + AHEAD_S
            for job in self._jobs.values():
                if job.timer is None and job.ends_at < near and job.handle is not None:
                    self._set_timer(job)

    async def _run(self, job: Attempt) -> None:
        job.begun = True
        # Only now, in the task's own first step: if it ends in this step nothing is sent of it.
        self._outbox.add(job.started_report)
        self._outbox.wake()
        try:
            outcome = await self._driver.run(job.task)
        except asyncio.CancelledError as error:
            self._ended(job, error)
        except (Exception, SystemExit) as error:
            self._ended(job, error)
        else:
            point("worker.done_before_report")
            self._ended(job, outcome)

    def _end(self, job: Attempt, why: Why) -> None:
        """Have an attempt end before its time; the first reason stands."""
        if job.ended:
            return
        if not job.begun and job.handle is not None and job.key in self._held:
            self._loop.call_soon(self._end, job, why)  # its driver has a turn to interrupt
            return
        if job.why is None:
            job.why = why
        job.task.cancelled = True
        if job.handle is not None:
            job.handle.cancel()
        if not job.begun:  # waiting, or cancelled before its first step, which then never comes
            self._ended(job, None)

    def _ended(self, job: Attempt, outcome: Result | str | BaseException | None) -> None:
        job.ended = True
        del self._jobs[job.key]
        if job.timer is not None:
            job.timer.cancel()
        if job.handle is not None:
            self._running -= 1
        over = self._ending or Ending.STOPPED
        self._outbox.add(report(job, outcome, over, self._loop.time()))
        self._outbox.wake()
        if self._waiting and not self._stopping:
            self._start_waiting()
        elif self._stopping and not self._running:
            self._idle.set()

    def _start_waiting(self) -> None:
        while self._waiting and self._running < self._options.capacity:
            job = self._waiting.popleft()
            if not job.ended:
                self._start(job)
        if len(self._waiting) <= WAITING_MAX:
            self._spare.set()

    # -- reports -----------------------------------------------------------------------------

    async def _send_progress(self, task: Task, document: Any) -> None:
        report = messages.progress(task, document)
        if len(report[1]) > PROGRESS_BYTES:
            raise ValueError(f"a progress document has at most {PROGRESS_BYTES // 1024} kB")
        await self._outbox.wait_for_room()
        self._outbox.add(report)
        self._outbox.wake()

    async def _send_spent(self, task: Task, usage: Any, model: str, meter: str) -> None:
        await self._outbox.wait_for_room()
        self._outbox.add(messages.spent(task, usage, model, meter))
        self._outbox.wake()
