"""Every name asb uses in Redis, built in this one file.

===============================  ========  ===================================================
key / channel                    type      what
===============================  ========  ===================================================
``asb:events``                   stream    the log; only services write it
``asb:intake[:<name>]``          stream    intake streams: whoever is not a service writes here
``asb:deadletter``               stream    refused entries, with the reason
``asb:inbox:<worker>``           stream    what a worker is asked to do
``asb:worker:<worker>``          string    a worker's heartbeat (``SET … EX``), its session first
``asb:service:<name>:<process>`` hash      a service's heartbeat and counters; expires
``asb:progress:<agent>:<task>``  string    progress view, JSON
``asb:agents:token:usage``       string    totals per agent, JSON
``asb:report:<date>``            string    daily report, JSON
``asb:throttle``                 string    every window of every scope, JSON
``asb:alerts``                   channel   alerts
``asb:tokens:report|usage``      channel   daily report; usage as it is charged
``{asb:events}:…``               any       internal, in the slot of the log
===============================  ========  ===================================================

``ASB_NAMESPACE`` replaces the leading ``asb``, so several buses can share a server.
"""

from __future__ import annotations

import re

import msgspec


def escaped(text: str) -> str:
    """``text`` as a glob that matches only itself."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


DUPLICATE_DAYS = 35  # how long a repeated idempotency key is known as one


class Keys(msgspec.Struct, frozen=True):
    """The key names of one namespace. Build keys here and nowhere else."""

    namespace: str = "asb"

    @property
    def log(self) -> str:
        return f"{self.namespace}:events"

    @property
    def main_intake(self) -> str:
        return f"{self.namespace}:intake"

    def intake(self, name: str | None = None) -> str:
        """The intake stream of ``name``, or the shared one."""
        return f"{self.main_intake}:{name}" if name else self.main_intake

    @property
    def deadletter(self) -> str:
        return f"{self.namespace}:deadletter"

    @property
    def deadletter_marks(self) -> str:
        """Hash ``intake -> last entry id`` put among the dead letters, in their slot."""
        return f"{{{self.deadletter}}}:marks"

    @property
    def deadletter_dropped(self) -> str:
        """How many of the oldest dead letters were dropped, in their slot."""
        return f"{{{self.deadletter}}}:dropped"

    def inbox(self, worker: str) -> str:
        return f"{self.namespace}:inbox:{worker}"

    def worker(self, worker: str) -> str:
        return f"{self.namespace}:worker:{worker}"

    def service(self, name: str, process: str) -> str:
        """Hash of one service of one process: its heartbeat, with its counters; expires."""
        return f"{self.namespace}:service:{name}:{process}"

    def progress(self, agent: str, task: str) -> str:
        return f"{self.namespace}:progress:{agent}:{task}"

    @property
    def progress_prefix(self) -> str:
        """What the keys of progress documents begin with."""
        return f"{self.namespace}:progress:"

    @property
    def notices(self) -> tuple[str, str]:
        """Patterns of the channels on which a server tells, where it does, that progress keys and
        the probe change. Redis compares patterns with a user's rights letter by letter."""
        every = "__keyspace@*__:"
        return f"{every}{escaped(self.progress_prefix)}*", every + escaped(self.probe)

    @property
    def token_usage(self) -> str:
        return f"{self.namespace}:agents:token:usage"

    def report(self, date: str) -> str:
        return f"{self.namespace}:report:{date}"

    @property
    def throttle(self) -> str:
        return f"{self.namespace}:throttle"

    @property
    def alerts_channel(self) -> str:
        return f"{self.namespace}:alerts"

    @property
    def report_channel(self) -> str:
        return f"{self.namespace}:tokens:report"

    @property
    def usage_channel(self) -> str:
        return f"{self.namespace}:tokens:usage"

    # -- internal keys: the braces put them into the slot of the log -------------------------

    def _internal(self, suffix: str) -> str:
        return f"{{{self.log}}}:{suffix}"

    def task_index(self, task: str) -> str:
        """List of the log ids of one task's events."""
        return self._internal(f"task:{task}")

    @property
    def task_index_prefix(self) -> str:
        return self._internal("task:")

    def duplicates(self, day: int) -> str:
        """Hash ``intake id -> digest`` of the ids taken on one UTC day (days since the epoch)."""
        return self._internal(f"ids:{day}")

    @property
    def services(self) -> str:
        """Hash ``name:process -> 1``: where heartbeats of services are to be looked for."""
        return self._internal("services")

    @property
    def unregistered_intakes(self) -> str:
        """What the last look for intakes that nobody opened has found; expires."""
        return self._internal("unregistered-intakes")

    @property
    def probe(self) -> str:
        """Set now and then, to hear whether the server tells of keys that change; expires."""
        return self._internal("probe")

    def unreadable(self, digest: str) -> str:
        """Stands while a value under a progress key, which is no document, was reported once."""
        return self._internal(f"unreadable:{digest}")

    @property
    def alert_mark(self) -> str:
        """Log id of the last alert that was published."""
        return self._internal("alerts")

    def hook(self, name: str) -> str:
        """Hash of one alert hook: which alert it had last, which is being run."""
        return self._internal(f"hook:{name}")

    @property
    def secret(self) -> str:
        """The secret of the bus, made by its first host: it keys digests of texts."""
        return self._internal("secret")

    @property
    def forgotten(self) -> str:
        """Hash ``task -> log id of its task.forgotten``: whose words are still to be taken out."""
        return self._internal("forgotten")

    @property
    def unclean(self) -> str:
        """Hash ``intake -> entry id`` of the newest raw entry there that must not stay."""
        return self._internal("unclean")

    @property
    def rewriter(self) -> str:
        """Which host takes words out of the streams now; expires."""
        return self._internal("rewriter")

    @property
    def rewrite_problem(self) -> str:
        """Why words that are to go are still there, in words for people; expires."""
        return self._internal("rewrite-problem")

    @property
    def snapshot_record(self) -> str:
        """JSON: how far the newest snapshot reaches, and why the last try failed, if it did."""
        return self._internal("snapshot-record")

    @property
    def archive_mark(self) -> str:
        """JSON: where the archive is, its last segment, and where the log begins since its cut."""
        return self._internal("archive")

    @property
    def carried(self) -> str:
        """Stream: entries that were cut off the log and whose words are still needed, with their
        ids: prompts of open tasks, progress documents, what the delegator was taught."""
        return self._internal("carried")

    @property
    def checkpoints(self) -> str:
        """Hash ``events log-id -> state``: states along the log, for its past moments."""
        return self._internal("checkpoints")

    @property
    def checkpoint_blocks(self) -> str:
        """Hash ``digest -> block``: the ended tasks of those states, each block once."""
        return self._internal("checkpoint-blocks")

    @property
    def snapshot(self) -> str:
        return self._internal("snapshot")


# -- beside any stream, in its slot ---------------------------------------------------------------


def _beside(stream: str, name: str) -> str:
    """A key in the slot of ``stream``, which may name its slot itself."""
    return f"{stream}:{name}" if stream.startswith("{") else f"{{{stream}}}:{name}"


def rewrite_copy(stream: str) -> str:
    """The copy of ``stream`` that takes its place soon, in its slot."""
    return _beside(stream, "rewrite")


def rewritten(stream: str) -> str:
    """What ``stream`` was before, for a moment, until it is freed."""
    return _beside(stream, "rewritten")


def rewrite_run(stream: str) -> str:
    """Who makes that copy, in the slot of ``stream``; expires."""
    return _beside(stream, "rewriting")
