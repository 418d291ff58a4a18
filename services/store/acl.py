"""Redis users: what each role may do, as a line for Redis' ACL file or `ACL SETUSER`.

===========  =====================================================================================
``agent``    its own intake, its progress keys, its heartbeat, and reading its inbox: nothing else
``service``  the whole namespace: the engine, projectors, and people who operate the bus
``viewer``   reading views, reports and heartbeats, and listening: no words, no log, no secret; with
             ``--with-texts`` the log, intakes, inboxes and progress as well, never the secret
===========  =====================================================================================

Isolation is by name: two programs that log in as one user are one agent. From Redis 7.0 on, each
right of an agent stands in a selector of its own, so commands for one key do not work on another;
6.2 knows one list of commands for all keys of a user (`weaknesses` says what that leaves open).
"""

from __future__ import annotations

import hashlib

from events.keys import Keys

ROLES = ("agent", "service", "viewer")
SELECTORS_SINCE = (7, 0)
WAITAOF_SINCE = (7, 2)
PLACEHOLDER = "#PUT-THE-SHA256-OF-THE-PASSWORD-HERE"

_LOOK = "+xlen +xrange +xrevrange +xinfo|stream"
# The last three: in a Cluster, to learn who serves what, and to follow a slot that moves.
_ALWAYS = "+ping +echo +time +select +cluster|slots +command +asking"
_READ = (
    "+get +getrange +mget +strlen +exists +ttl +pttl +type +scan "
    "+xread +xlen +xrange +xrevrange +xinfo|stream +hget +hmget +hgetall +hkeys +hlen +lrange +llen"
)
_LISTEN = "+subscribe +psubscribe +unsubscribe +punsubscribe"
_SERVE = (
    "+set +del +unlink +expire +pexpire +persist +incr "
    "+hset +hdel +rpush +lpush +lpop +rpop +lrem +lmove "
    "+xadd +xdel +xtrim +xsetid +xgroup +xreadgroup +xack +xautoclaim "
    "+xinfo +xpending +xclaim +rename +bgrewriteaof "
    "+eval +evalsha +script|load +script|exists +publish +multi +exec +discard "
    "+info +config|get +memory|usage +dbsize +object"
)


def password_hash(password: str) -> str:
    """A password as an ACL line names it: its SHA-256, never the password."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def line(
    name: str,
    role: str,
    keys: Keys,
    secret: str = PLACEHOLDER,
    version: tuple[int, ...] = (7, 0),
    *,
    with_texts: bool = False,
) -> str:
    """The ACL line of one user. ``secret`` is what `password_hash` gives; ``with_texts``: a viewer
    reads the log as well, and with it what people wrote."""
    head = f"user {name} on {secret} sanitize-payload resetchannels resetkeys -@all {_ALWAYS}"
    if role == "service":
        channels = " ".join(f"&{c}" for c in (f"{keys.namespace}:*", *keys.notices))
        own = f"~{keys.namespace}:* ~{{{keys.namespace}:*"
        waits = " +waitaof" if version >= WAITAOF_SINCE else ""
        return f"{head} {own} {channels} {_READ} {_LISTEN} {_SERVE}{waits}"
    if role == "viewer":
        channels = f"&{keys.alerts_channel} &{keys.namespace}:tokens:*"
        only = "%R" if version >= SELECTORS_SINCE else ""
        seen = (*_views(keys), *(_worded(keys) if with_texts else ()))
        own = " ".join(f"{only}~{key}" for key in seen)
        return f"{head} {own} {channels} {_READ} {_LISTEN} +info"
    if version < SELECTORS_SINCE:
        own = " ".join(f"~{key}" for key in _own_keys(name, keys))
        return f"{head} {own} +xadd +xread {_LOOK} +get +set +del +exists +ttl +expire"
    intake, inbox, sign, progress = _own_keys(name, keys)
    return (
        f"{head} "
        f"(~{intake} -@all +xadd {_LOOK}) "
        f"(%R~{inbox} -@all +xread {_LOOK}) "
        f"(~{sign} -@all +get +set +del +exists +ttl +expire) "
        f"(~{progress} -@all +get +set +exists +ttl)"
    )


def _views(keys: Keys) -> tuple[str, ...]:
    """What is figures and names alone: views, reports, heartbeats."""
    return (
        keys.throttle,
        keys.token_usage,
        keys.report("*"),
        keys.worker("*"),
        keys.service("*", "*"),
        keys.services,
    )


def _worded(keys: Keys) -> tuple[str, ...]:
    """Where words stand, or what is needed to read them; never the secret of the bus."""
    return (
        keys.log,
        keys.carried,
        keys.snapshot,
        keys.task_index("*"),
        keys.forgotten,
        keys.progress("*", "*"),
        keys.main_intake,
        keys.intake("*"),
        keys.deadletter,
        keys.inbox("*"),
        keys.archive_mark,
        keys.snapshot_record,
        keys.rewrite_problem,
        keys.unregistered_intakes,
    )


def _own_keys(name: str, keys: Keys) -> tuple[str, str, str, str]:
    """Intake, inbox, heartbeat and progress keys of an agent."""
    return keys.intake(name), keys.inbox(name), keys.worker(name), keys.progress(name, "*")


def weaknesses(role: str, version: tuple[int, ...]) -> list[str]:
    """What this version of Redis cannot enforce for a role, as sentences."""
    if role != "agent" or version >= SELECTORS_SINCE:
        return []
    return [
        "its inbox is not read-only: it can write or delete what only it itself reads",
        "it can delete or replace its own intake and progress keys with anything of any type",
        "what other agents own, the log, the windows and the channels are as closed as on 7.0",
    ]
