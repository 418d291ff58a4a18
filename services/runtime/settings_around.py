"""Settings of what stands around a bus: privacy, archive, metrics, the page, telemetry, traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=0, le=65535)]  # 0: any that is free


KEEP_EVENTS_MIN = 1_000


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
    ] = 20_000
    keep_events: Annotated[
        int,
        Meta(
            ge=KEEP_EVENTS_MIN,
            description="so many of the newest entries of the log stay in Redis; older ones go to "
            "the archive, one file at a time",
        ),
    ] = 500_000
    keep_days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="how old an entry in Redis may become; 0: any age"),
    ] = 90
    words: Annotated[
        bool,
        Meta(description="whether the archive keeps what was written: prompts, answers, errors"),
    ] = False


class MetricsSettings(Section, frozen=True, kw_only=True):
    enabled: Annotated[bool, Meta(description="whether `asb up` serves metrics to Prometheus")] = (
        True
    )
    host: Annotated[str, Meta(min_length=1, description="address that the exporter listens on")] = (
        "127.0.0.1"
    )
    port: Annotated[
        Port,
        Meta(
            description="port of the exporter; where the default one is taken it takes another "
            "(0: any), which `asb doctor` names",
        ),
    ] = 9464


class WebSettings(Section, frozen=True, kw_only=True):
    enabled: Annotated[bool, Meta(description="whether `asb up` serves the page")] = True
    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="address that the page listens on; another than this machine's own needs "
            "TLS or a proxy, and to look needs the token",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        Port,
        Meta(
            description="port of the page; where the default one is taken it takes another "
            "(0: any)",
        ),
    ] = 8642
    token: Annotated[
        str,
        Meta(
            max_length=200,
            description="what lets the page act on the bus, at least 16 characters; without one it "
            "is made, and stands in `web-token` in the data folder",
        ),
    ] = ""
    names: Annotated[
        tuple[str, ...],
        Meta(description="host names the page is called by, beside this machine's own"),
    ] = ()
    tls_certificate: Annotated[
        str, Meta(description="file of the TLS certificate; without one, no TLS")
    ] = ""
    tls_key: Annotated[str, Meta(description="file of its key")] = ""
    behind_proxy: Annotated[
        bool, Meta(description="a proxy with TLS stands in front: the page itself may go without")
    ] = False

    @property
    def is_remote(self) -> bool:
        """Whether others than this machine may reach it."""
        own = self.host in ("127.0.0.1", "::1", "localhost")
        return not own or self.behind_proxy or bool(self.names)


class TelemetrySettings(Section, frozen=True, kw_only=True):
    port: Annotated[
        Port,
        Meta(
            description="port on loopback where `asb service telemetry` receives agents' telemetry",
        ),
    ] = 4318


class TracesSettings(Section, frozen=True, kw_only=True):
    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s]+)?$",
            description="a collector of OpenTelemetry that takes OTLP by HTTP, such as "
            "http://127.0.0.1:4318; without one, no traces",
        ),
    ] = ""
    headers: Annotated[
        str,
        Meta(description="what is sent to it beside: name=value,name=value"),
    ] = ""
