"""Settings of what stands around a bus: privacy, archive, metrics, telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of settings: keys it does not know are errors."""


class PrivacySettings(Section, frozen=True, kw_only=True):
    """What people wrote: how long it is kept, and what happens to secrets in it."""

    keep_days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="days for which an ended task's words stay; 0: for ever"),
    ] = 0
    prompts: Annotated[
        Literal["keep", "refuse"],
        Meta(description="a prompt that holds a secret: keep it for the agent, or refuse it"),
    ] = "keep"


class ArchiveSettings(Section, frozen=True, kw_only=True):
    folder: Annotated[
        Path | None,
        Meta(description="folder of the archives; without one, `archive` in the data folder"),
    ] = None
    segment_events: Annotated[
        int, Meta(ge=1, le=10_000_000, description="entries in one file of the archive")
    ] = 100_000


class MetricsSettings(Section, frozen=True, kw_only=True):
    enabled: Annotated[bool, Meta(description="whether `asb up` serves metrics to Prometheus")] = (
        True
    )
    host: Annotated[str, Meta(min_length=1, description="address that the exporter listens on")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="port of the exporter; where the default one is taken it takes another "
            "(0: any), which `asb doctor` names",
        ),
    ] = 9464


class TelemetrySettings(Section, frozen=True, kw_only=True):
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="port on loopback where `asb service telemetry` receives agents' telemetry",
        ),
    ] = 4318
