"""What has happened so far, counted."""

from __future__ import annotations

import msgspec


class Histogram(msgspec.Struct, array_like=True, gc=False):
    """Durations: how many in each bucket, and their sum in µs."""

    counts: dict[int, int] = {}
    total_us: int = 0


class Returned(msgspec.Struct, array_like=True, gc=False):
    """What was taken back of earlier charges, as amounts ≥ 0: charges so far are the sums of the
    fold plus these, and never fall."""

    tokens: int = 0
    nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Difference(msgspec.Struct, array_like=True, gc=False):
    """Two sources of usage spoke of the same attempt: how often, and by how many tokens apart."""

    reports: int = 0
    tokens: int = 0


class Tallies(msgspec.Struct, gc=False):
    """All counts. ``events`` by wire type, ``alerts`` by unit and level, ``durations`` by what was
    timed and a label, ``returned`` by agent and model, ``differences`` by the better source."""

    events: dict[str, int] = {}
    alerts: dict[str, int] = {}
    durations: dict[str, Histogram] = {}
    returned: dict[str, Returned] = {}
    differences: dict[str, Difference] = {}
