"""The ids of traces, in the form of W3C Trace Context.

A trace is a task. Its ids follow from the names of bus, task and attempt alone: whoever knows these
names the same span, at any time, and what an agent tells of its own work joins it.
"""

from __future__ import annotations

from hashlib import blake2b

TRACE_BYTES, SPAN_BYTES = 16, 8


def trace_id(namespace: str, task: str) -> bytes:
    """The trace of a task: 16 bytes."""
    return _id(TRACE_BYTES, namespace, task)


def span_id(namespace: str, task: str, name: str, attempt: int = 0) -> bytes:
    """One span of it, 8 bytes: the whole task, or what is called ``name`` of an attempt."""
    return _id(SPAN_BYTES, namespace, task, name, str(attempt))


def traceparent(namespace: str, task: str, attempt: int) -> str:
    """What says to a program that its work is part of this attempt (the variable ``TRACEPARENT``;
    https://www.w3.org/TR/trace-context, version 00, sampled)."""
    span = span_id(namespace, task, "attempt", attempt)
    return f"00-{trace_id(namespace, task).hex()}-{span.hex()}-01"


def _id(size: int, *names: str) -> bytes:
    return blake2b("\0".join(names).encode("utf-8", "replace"), digest_size=size).digest()
