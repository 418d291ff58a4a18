"""Settings of the page."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from services.runtime.settings_around import Section


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
        int,
        Meta(
            ge=0,
            le=65535,
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
