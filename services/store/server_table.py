"""What a server says of itself, as rows for a screen."""

from __future__ import annotations

from services.store.health import (
    CLOSE_REPLICAS,
    NEEDED_EVENTS,
    NO_EVICTION,
    OLDEST,
    FactRow,
    ServerFacts,
    Verdict,
    evicts,
    sends_needed_events,
)

FULL_PERCENT = 80  # of maxmemory: from here on it is said


def facts_table(facts: ServerFacts) -> list[FactRow]:
    """Rows for a screen: name, value, verdict, hint (empty where all is well)."""
    return [
        _version_row(facts),
        ("run id", facts.run_id, "ok", ""),
        _mode_row(facts),
        _row("role", facts.role, facts.role == "master", "bad", "point --redis at the primary"),
        _row("loading", _yes(facts.loading), not facts.loading, "bad", "wait until it is loaded"),
        _memory_row(facts),
        _evicted_row(facts),
        *_aof_rows(facts),
        *_failover_rows(facts),
        _events_row(facts),
        _row(
            "reachable from",
            "this machine" if facts.loopback else "the network",
            facts.loopback,
            "warn",
            "give every agent its own user: `asb acl NAME`",
        ),
    ]


# -- rows --------------------------------------------------------------------------------------


def _row(name: str, value: str, good: bool, otherwise: Verdict, hint: str) -> FactRow:
    return (name, value, "ok", "") if good else (name, value, otherwise, hint)


def _version_row(facts: ServerFacts) -> FactRow:
    good = facts.version >= OLDEST
    return _row("version", facts.version_text, good, "bad", "asb needs Redis 6.2 or newer")


def _mode_row(facts: ServerFacts) -> FactRow:
    value = f"{facts.mode}: {facts.cluster}" if facts.cluster else facts.mode
    return ("mode", value, "ok", "")


def _memory_row(facts: ServerFacts) -> FactRow:
    bound = f"at most {facts.maxmemory // 2**20} MiB" if facts.maxmemory else "no bound"
    value = f"{facts.used_memory / 2**20:,.1f} MiB used, {bound}, {facts.maxmemory_policy}"
    if evicts(facts):
        return ("memory", value, "bad", NO_EVICTION)
    full = facts.maxmemory and facts.used_memory * 100 >= FULL_PERCENT * facts.maxmemory
    hint = "when it is full it refuses what is submitted: raise maxmemory, or trim old data"
    return _row("memory", value, not full, "warn", hint)


def _evicted_row(facts: ServerFacts) -> FactRow:
    value = f"{facts.evicted_keys:,} since this Redis started"
    hint = (
        "it dropped keys to make room, perhaps tasks or heartbeats: set maxmemory-policy "
        "noeviction, then `asb replay --verify` says whether the log is whole"
    )
    return _row("evicted keys", value, facts.evicted_keys == 0, "warn", hint)


def _aof_rows(facts: ServerFacts) -> list[FactRow]:
    status = facts.aof_last_write_status
    return [
        _row(
            "append-only file",
            "on" if facts.aof_enabled else "off",
            facts.aof_enabled,
            "bad",
            "redis-cli CONFIG SET appendonly yes",
        ),
        _row(
            "forced to disk",
            facts.appendfsync,
            facts.appendfsync == "always",
            "warn",
            "redis-cli CONFIG SET appendfsync always survives power loss too",
        ),
        _row("last write", status, status != "err", "bad", "free disk space on the Redis host"),
        ("waitaof", _yes(facts.has_waitaof), "ok", ""),
    ]


def _failover_rows(facts: ServerFacts) -> list[FactRow]:
    if not facts.fails_over:
        return []
    needed = f"{facts.replicas_needed} must follow closely, or it takes no writes"
    free = "it takes writes whether they follow or not"
    value = f"{facts.replicas} following; {needed if facts.replicas_needed else free}"
    if not facts.replicas:
        return [("replicas", value, "warn", "nobody can take over: start a replica")]
    return [_row("replicas", value, facts.replicas_needed > 0, "warn", CLOSE_REPLICAS)]


def _events_row(facts: ServerFacts) -> FactRow:
    value = facts.notify_keyspace_events
    return _row(
        "keyspace events",
        value or "off",
        sends_needed_events(value),
        "warn",
        f"redis-cli CONFIG SET notify-keyspace-events {NEEDED_EVENTS} shows progress at once",
    )


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
